/** Makes elements. What a server says only ever becomes text or an attribute here, never markup. */

/** An element with these properties, `data-*` under `dataset`, and these children (elements or text). */
export function make(tag, { dataset = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

/** Set the text only where it differs: a screen reader announces a change, not a repetition. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
  element.hidden = text === "";
}
