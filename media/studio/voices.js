/** The voice picker: OpenAI's names first, which every speech model takes, then the model's own by language. */

const OPENAI_VOICES = [
  "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
];

/** Fill `select` from a `/v1/voices` body, keeping the choice where the new list has it. */
export function offerVoices(select, body) {
  const chosen = select.value;
  const own = body.data.flatMap((entry) => entry.voices).filter(({ id }) => !OPENAI_VOICES.includes(id));
  const groups = [group("OpenAI's names", OPENAI_VOICES.map((id) => ({ id, name: id })))];
  for (const [language, voices] of byLanguage(own)) groups.push(group(language, voices));
  select.replaceChildren(...groups);
  select.value = chosen;
  if (select.selectedIndex < 0) select.value = OPENAI_VOICES[0];
}

function byLanguage(voices) {
  const languages = new Map();
  for (const voice of voices) {
    const language = languageName(voice.languages?.[0] ?? voice.language);
    languages.set(language, [...(languages.get(language) ?? []), voice]);
  }
  return [...languages].sort(([a], [b]) => a.localeCompare(b));
}

function languageName(tag) {
  if (!tag) return "The model's own";
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(tag);
  } catch {
    return tag;
  }
}

function group(label, voices) {
  const element = document.createElement("optgroup");
  element.label = label;
  element.append(...voices.map(({ id, name }) => new Option(name && name !== id ? `${name} (${id})` : id, id)));
  return element;
}
