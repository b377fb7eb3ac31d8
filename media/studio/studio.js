/** The studio page: wires the panels, the API key and the list of models together. */

import { getJson, keyring } from "./connection.js";
import { imagesPanel } from "./images.js";
import { JobsPanel } from "./jobs.js";
import { ListenPanel } from "./listen.js";
import { SpeakPanel } from "./speak.js";
import { videosPanel } from "./videos.js";

const $ = (id) => document.getElementById(id);

/** The server's models, and which of them the panels were last told they use. */
const models = { all: [], listening: "auto", speaking: "auto", drawing: "auto", filming: "auto" };

new ListenPanel({ onModel: (id) => use("listening", id) });
const speak = new SpeakPanel({ onModel: (id) => use("speaking", id), onProblem: showProblem });
const jobs = new JobsPanel({ nameOf });
const images = imagesPanel({ onModel: (id) => use("drawing", id), onJob: () => jobs.refresh() });
const videos = videosPanel({ onModel: (id) => use("filming", id), onJob: () => jobs.refresh() });

function use(task, id) {
  models[task] = id;
  showModelsInUse();
}

function label(model) {
  const name = model.display_name || model.id;
  return model.embedded ? `${name} (embedded)` : name;
}

/** How to call a model; its id when the server knows it no more. */
function nameOf(id) {
  const model = models.all.find((each) => each.id === id);
  return model ? label(model) : id;
}

/** How to call the model of a task. `auto` gets its name when there is only one it can be. */
function nameInUse(id, candidates) {
  return id === "auto" && candidates.length === 1 ? label(candidates[0]) : nameOf(id);
}

function ofType(type) {
  return models.all.filter((model) => model.type === type);
}

function ofTask(task) {
  return models.all.filter((model) => model.task === task);
}

function showModelsInUse() {
  if (models.all.length === 0) return;
  const listening = nameInUse(models.listening, ofType("transcribe"));
  const speaking = nameInUse(models.speaking, ofType("audio"));
  const drawing = visualInUse("Drawing", models.drawing, "image");
  const filming = visualInUse("Filming", models.filming, "video");
  $("models-in-use").textContent = `Listening with ${listening}. Speaking with ${speaking}.${drawing}${filming}`;
  $("embedded-note").hidden = !models.all.some((model) => model.embedded);
}

/** A sentence on the model of a task that a machine may have none for. */
function visualInUse(verb, id, task) {
  const able = ofTask(task).filter((model) => model.available);
  return able.length > 0 ? ` ${verb} with ${nameInUse(id, able)}.` : "";
}

function showProblem(problem) {
  $("server-problem-message").textContent = problem.message;
  $("server-problem-way-out").textContent = problem.wayOut ?? "";
  // The key form says it better, and is the way out.
  $("server-problem").hidden = !$("key-form").hidden;
}

async function load() {
  $("server-problem").hidden = true;
  try {
    models.all = (await getJson("v1/models")).data;
  } catch (problem) {
    $("models-in-use").textContent = "";
    showProblem(problem);
    return;
  }
  speak.offerModels(ofType("audio").map((model) => ({ id: model.id, label: label(model) })));
  for (const [panel, task] of [[images, "image"], [videos, "video"]]) {
    panel.offerModels(ofTask(task).map((model) => ({ ...model, label: label(model) })));
  }
  showModelsInUse();
  jobs.start();
  images.resume();
  videos.resume();
  await speak.loadVoices();
  document.documentElement.dataset.ready = "true";
}

keyring.addEventListener("needed", () => {
  $("key-form").hidden = false;
  $("api-key").value = "";
  $("api-key").focus();
});

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keyring.key = $("api-key").value.trim();
  $("key-form").hidden = true;
  load();
});

$("server-retry").addEventListener("click", load);

load();
