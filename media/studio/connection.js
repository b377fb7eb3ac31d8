/**
 * How the page reaches the server that served it: addresses, the API key, and failures in plain words.
 *
 * Addresses are relative to the page, so the studio also works behind a proxy that adds a path in front.
 */

const STORED_KEY = "sonoreel.apiKey";
const KEY_CODES = new Set(["invalid_api_key", "missing_api_key"]);

/** The API key of this tab. Fires "needed" when the server refused a request for want of a good one. */
class Keyring extends EventTarget {
  get key() {
    return sessionStorage.getItem(STORED_KEY) ?? "";
  }

  set key(value) {
    if (value) sessionStorage.setItem(STORED_KEY, value);
    else sessionStorage.removeItem(STORED_KEY);
  }

  ask() {
    this.dispatchEvent(new Event("needed"));
  }
}

export const keyring = new Keyring();

/** What went wrong (`message`) and what the person can do about it (`wayOut`). */
export class Problem extends Error {
  constructor(message, wayOut = "") {
    super(message);
    this.wayOut = wayOut;
  }
}

function keyProblem(message) {
  keyring.ask();
  return new Problem(message || "This server wants an API key.", "Enter one at the top of the page.");
}

/** GET a JSON resource. Throws Problem. */
export async function getJson(path, parameters = {}) {
  const address = new URL(path, document.baseURI);
  address.search = new URLSearchParams(parameters);
  const headers = keyring.key ? { Authorization: `Bearer ${keyring.key}` } : {};
  let response;
  try {
    response = await fetch(address, { headers });
  } catch {
    throw new Problem("The server cannot be reached.", "Check that it is running, then try again.");
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  const message = body?.error?.message ?? "";
  if (response.status === 401) throw keyProblem(message);
  throw new Problem(message || `The server answered ${response.status}.`, wayOutOfStatus(response.status));
}

function wayOutOfStatus(status) {
  if (status === 429 || status === 503) return "Try again in a few seconds.";
  if (status === 403) return "Open the studio at the server's own address.";
  return status >= 500 ? "The server's log has the details." : "";
}

/** Open a WebSocket to `path` on this page's server. */
export function openSocket(path, parameters, protocols = []) {
  const address = new URL(path, document.baseURI);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  address.search = new URLSearchParams(parameters);
  return new WebSocket(address, protocols);
}

/** The Problem in an `error` object of a server event (Together's and OpenAI's have the same fields). */
export function problemInEvent(error) {
  if (KEY_CODES.has(error?.code)) return keyProblem(error.message);
  return new Problem(error?.message || "The server reported an error without saying which.", "");
}

const CLOSE_REASONS = {
  1001: ["The server is shutting down.", "Reconnect when it is back."],
  1008: ["The server refused this connection.", ""],
  1009: ["The server found a message too large.", ""],
  1011: ["The server ran into an error.", "Its log has the details."],
  1012: ["The server is restarting.", "Reconnect in a moment."],
  1013: ["The server is busy.", "Try again in a few seconds."],
  4503: ["No engine is free for this.", "Try again in a few seconds."],
};

/**
 * Why a socket closed when nobody asked it to. A browser hides the HTTP status of a refused handshake and reports 1006,
 * so that case asks the REST API, which answers in words.
 */
export async function problemInClose({ code, reason }) {
  if (code === 1006) {
    try {
      await getJson("v1/models");
    } catch (problem) {
      return problem;
    }
    return new Problem("The connection was lost.", "Reconnect to go on.");
  }
  const [message, wayOut] = CLOSE_REASONS[code] ?? [`The server closed the connection (${code}).`, ""];
  return new Problem(reason && !(code in CLOSE_REASONS) ? `${message} ${reason}` : message, wayOut);
}
