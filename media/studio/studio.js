/** The studio page: wires the two panels, the API key and the list of models together. */

import { getJson, keyring } from "./connection.js";
import { ListenPanel } from "./listen.js";
import { SpeakPanel } from "./speak.js";

const $ = (id) => document.getElementById(id);

/** The server's models, and which of them the panels were last told they use. */
const models = { all: [], listening: "auto", speaking: "auto" };

new ListenPanel({ onModel: (id) => use("listening", id) });
const speak = new SpeakPanel({ onModel: (id) => use("speaking", id), onProblem: showProblem });

function use(task, id) {
  models[task] = id;
  showModelsInUse();
}

function label(model) {
  const name = model.display_name || model.id;
  return model.embedded ? `${name} (embedded)` : name;
}

/** How to call the model of a task. `auto` gets its name when there is only one it can be. */
function nameInUse(id, type) {
  const candidates = models.all.filter((model) => model.type === type);
  const model = models.all.find((each) => each.id === id) ?? (candidates.length === 1 ? candidates[0] : null);
  return model ? label(model) : id;
}

function showModelsInUse() {
  if (models.all.length === 0) return;
  const listening = nameInUse(models.listening, "transcribe");
  const speaking = nameInUse(models.speaking, "audio");
  $("models-in-use").textContent = `Listening with ${listening}. Speaking with ${speaking}.`;
  $("embedded-note").hidden = !models.all.some((model) => model.embedded);
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
  speak.offerModels(models.all.filter((model) => model.type === "audio").map((model) => ({ id: model.id, label: label(model) })));
  showModelsInUse();
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
