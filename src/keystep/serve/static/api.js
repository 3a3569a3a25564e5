/** What the server is asked. The token lives as long as the tab, and goes along with nothing by itself: no cookie. */

let token = sessionStorage.getItem("keystep:token");

/** Take the token off the page's address, so that it is neither shown nor bookmarked. */
export function takeToken() {
  const here = new URL(location.href);
  if (!here.searchParams.has("token")) return;
  setToken(here.searchParams.get("token"));
  here.searchParams.delete("token");
  history.replaceState(null, "", here);
}

export function setToken(text) {
  token = text;
  sessionStorage.setItem("keystep:token", text);
}

/** A refusal by the server, or its silence (status 0). */
export class ApiError extends Error {
  constructor(status, message, body = {}) {
    super(message);
    this.status = status;
    this.body = body;
  }

  /** Whether the same request may succeed later. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** An address for what sends no header itself: pictures, films, events. */
export function address(path, values = {}) {
  const url = new URL(path, location.origin);
  for (const [key, value] of Object.entries(values)) url.searchParams.set(key, value);
  if (token) url.searchParams.set("token", token);
  return url.pathname + url.search;
}

async function ask(method, path, {body, values = {}, signal, keepalive, headers = {}} = {}) {
  const url = new URL(path, location.origin);
  for (const [key, value] of Object.entries(values)) url.searchParams.set(key, value);
  const sent = {...headers};
  if (token) sent.Authorization = `Bearer ${token}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer;
  try {
    const text = JSON.stringify(body);
    answer = await fetch(url, {method, headers: sent, body: text, signal, keepalive, cache: "no-cache"});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer.");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new ApiError(answer.status, said.error ?? `The server answered ${answer.status}.`, said);
}

const json = method => async (path, body, options = {}) => {
  const answer = await ask(method, path, {body, ...options});
  return answer.status === 204 ? null : answer.json();
};

export const get = async (path, values, signal) => (await ask("GET", path, {values, signal})).json();
export const put = json("PUT");
export const post = json("POST");
export const remove = json("DELETE");

/** Whether an address is there at all, without loading it: its answer's status and body, if the body is JSON. */
export async function probe(path, values = {}) {
  const answer = await ask("GET", path, {values, headers: {Range: "bytes=0-0"}});
  const said = answer.headers.get("Content-Type")?.includes("json") ? await answer.json() : {};
  return {status: answer.status, body: said};
}

export async function bytes(path, values, signal) {
  return (await ask("GET", path, {values, signal})).arrayBuffer();
}

export async function blob(path, values, signal) {
  return (await ask("GET", path, {values, signal})).blob();
}

/** A file to keep: its content, its name, and what the server notes on it. */
export async function file(path, values, signal) {
  const answer = await ask("GET", path, {values, signal});
  const said = answer.headers.get("Content-Disposition") ?? "";
  const name = /filename="([^"]+)"/.exec(said)?.[1] ?? decodeURIComponent(/filename\*=utf-8''(\S+)/.exec(said)?.[1] ?? "");
  const notes = decodeURIComponent(answer.headers.get("Keystep-Notes") ?? "").split("\n").filter(Boolean);
  return {blob: await answer.blob(), name, notes};
}

/** What the server tells by itself. The connection rests while the page is hidden: a browser allows six a server. */
export function listen(path, handlers, {onopen = () => {}, onerror = () => {}} = {}) {
  let source = null;
  const close = () => {
    source?.close();
    source = null;
  };
  const open = () => {
    if (source && source.readyState !== EventSource.CLOSED) return;
    source = new EventSource(address(path));
    source.onopen = onopen;
    source.onerror = onerror;
    for (const [kind, handle] of Object.entries(handlers)) {
      source.addEventListener(kind, event => handle(JSON.parse(event.data)));
    }
  };
  const follow = () => (document.hidden ? close() : open());
  document.addEventListener("visibilitychange", follow);
  follow();
  return () => {
    document.removeEventListener("visibilitychange", follow);
    close();
  };
}
