// The live health of the device: what /health/ready and /api/public/about say, every few seconds.

/** @typedef {{name: string, status: "pass" | "fail", reason?: string}} Check */
/** @typedef {{status: "ok" | "unavailable", checks: Check[]}} Readiness */
/** @typedef {{name: string, version: string, target: string, uptime: number}} About */

/** How often the device is asked, and how long it may take, in milliseconds. */
const INTERVAL = 3000;
const LIMIT = 5000;

/** @type {Date | undefined} */
let lastAnswer;

/**
 * @param {string} id
 * @returns {HTMLElement}
 */
function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found;
}

/**
 * @template T
 * @param {string} path
 * @returns {Promise<T>}
 */
async function ask(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(LIMIT) });
  return response.json();
}

/** @param {number} seconds */
function duration(seconds) {
  const days = Math.floor(seconds / 86400);
  const clock = new Date((seconds % 86400) * 1000).toISOString().slice(11, 19);
  return days > 0 ? `${days} d ${clock}` : clock;
}

/** @param {Check} check */
function row(check) {
  const tr = document.createElement("tr");
  tr.dataset.state = check.status;
  for (const text of [check.name, check.status, check.reason ?? ""]) {
    tr.insertCell().textContent = text;
  }
  return tr;
}

/**
 * @param {string} state
 * @param {string} text
 */
function verdict(state, text) {
  const line = element("verdict");
  line.dataset.state = state;
  // A screen reader speaks every change; what has not changed is not said again.
  if (line.textContent !== text) line.textContent = text;
}

async function update() {
  try {
    const [readiness, about] = await Promise.all([
      /** @type {Promise<Readiness>} */ (ask("health/ready")),
      /** @type {Promise<About>} */ (ask("api/public/about")),
    ]);
    lastAnswer = new Date();
    const failing = readiness.checks.filter((check) => check.status === "fail").length;
    if (readiness.status === "ok") verdict("ok", "The device is well.");
    else verdict("fail", `The device is not ready: ${failing} of ${readiness.checks.length} checks fail.`);
    element("checks").replaceChildren(...readiness.checks.map(row));
    element("name").textContent = about.name;
    element("version").textContent = about.version;
    element("target").textContent = about.target;
    element("uptime").textContent = duration(about.uptime);
  } catch {
    const since = lastAnswer ? ` since ${lastAnswer.toLocaleTimeString()}` : "";
    verdict("offline", `The device has not answered${since}. Is it switched on and connected?`);
  } finally {
    setTimeout(update, INTERVAL);
  }
}

update();
