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

/** What went wrong (`message`), what the person can do about it (`wayOut`), and the HTTP status, 0 without an answer. */
export class Problem extends Error {
  constructor(message, wayOut = "", status = 0) {
    super(message);
    this.wayOut = wayOut;
    this.status = status;
  }

  /** Whether the same request may do better in a while, without anybody doing anything. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

function keyProblem(message) {
  keyring.ask();
  return new Problem(message || "This server wants an API key.", "Enter one at the top of the page.", 401);
}

export function unreachable() {
  return new Problem("The server cannot be reached.", "Check that it is running, then try again.");
}

/** Send a request and return the Response of a success. `options` are those of fetch. Throws Problem, or AbortError. */
export async function request(path, { parameters = {}, headers = {}, ...options } = {}) {
  const address = new URL(path, document.baseURI);
  address.search = new URLSearchParams(parameters);
  const authorization = keyring.key ? { Authorization: `Bearer ${keyring.key}` } : {};
  let response;
  try {
    response = await fetch(address, { ...options, headers: { ...headers, ...authorization } });
  } catch (error) {
    // What fetch throws for a network that fails; an abort is somebody's wish.
    if (error instanceof TypeError) throw unreachable();
    throw error;
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const message = body?.error?.message ?? "";
  if (response.status === 401) throw keyProblem(message);
  const { status } = response;
  throw new Problem(message || `The server answered ${status}.`, wayOutOfStatus(status), status);
}

/** Send a request that JSON answers. */
export async function requestJson(path, options = {}) {
  const response = await request(path, options);
  const body = await response.json().catch(() => null);
  // A proxy's page, or a connection that broke in the middle of the body.
  if (!body) throw new Problem("The server's answer was not whole.", "Try again.");
  return body;
}

/** GET a JSON resource. */
export function getJson(path, parameters = {}) {
  return requestJson(path, { parameters });
}

function wayOutOfStatus(status) {
  if (status === 429 || status === 503) return "Try again in a few seconds.";
  if (status === 403) return "Open the studio at the server's own address.";
  return status >= 500 ? "The server's log has the details." : "";
}

/**
 * The address of a result. Those this server signs are reached where the page was: a signature covers neither host nor
 * the path a proxy adds in front, and the page's content security policy allows no other origin.
 */
export function resultAddress(url) {
  const address = new URL(url, document.baseURI);
  const at = address.pathname.indexOf("/v1/blobs/");
  if (at < 0 || !address.searchParams.has("signature")) return address;
  return new URL(address.pathname.slice(at + 1) + address.search, document.baseURI);
}

/** Whether the page may load what is there. A results store of its own has addresses that it can only link to. */
export function isLoadable(address) {
  return address.origin === location.origin;
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
