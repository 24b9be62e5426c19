// Keeps the page in the browser, so that it works offline. Models and the runtime are kept when they are used.

const VERSION = "{version}"; // written by `maximir export`: another version replaces all files
const FILES = "{files}".split(" ");
const POLICY = "{policy}";

addEventListener("install", (event) => event.waitUntil(install()));
addEventListener("activate", (event) => event.waitUntil(activate()));
addEventListener("fetch", (event) => {
  const { request } = event;
  const own = request.url.startsWith(registration.scope);
  event.respondWith(own && request.method === "GET" ? answer(request) : Response.error());
});

async function install() {
  const cache = await caches.open(VERSION);
  await cache.addAll(FILES.map((path) => new Request(path, { cache: "reload" })));
  await skipWaiting();
}

async function activate() {
  for (const name of await caches.keys())
    if (name.startsWith("maximir-") && name !== VERSION) await caches.delete(name);
  await clients.claim();
}

async function answer(request) {
  const cache = await caches.open(VERSION);
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept) return guarded(kept);
  const reply = await fetch(request);
  if (reply.ok && reply.status === 200) cache.put(request, reply.clone()).catch(() => {}); // the disk may be full
  return guarded(reply);
}

/** Add headers that plain hosts do not send: no other address can be reached, and threads are allowed. */
function guarded(reply) {
  const headers = new Headers(reply.headers);
  headers.set("Content-Security-Policy", POLICY);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(reply.body, { status: reply.status, statusText: reply.statusText, headers });
}
