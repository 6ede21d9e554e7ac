// One page over the search API: a query, its results, and a sentence for every state in between.

const $ = (id) => document.getElementById(id);
const PAGE = 24;
const LOGIN = "v1/login";

let query = null; // {text} | {id} | {file}
let latest = 0; // an answer to an older search than the latest is dropped

async function api(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer; is it running?");
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401 && path !== LOGIN) {
    lock();
    throw new Error("This searcher is locked. Give its key:");
  }
  if (!answer.ok) throw new Error(body.detail || `The server answered ${answer.status}.`);
  return body;
}

function lock() {
  $("login").hidden = false;
  $("key").focus();
}

async function logIn(key) {
  try {
    await api(LOGIN, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ key }),
    });
  } catch (error) {
    say(error.message, true);
    return;
  }
  $("login").reset();
  $("login").hidden = true;
  say("");
  await start();
}

function ask(offset) {
  const options = { k: PAGE, offset, ...($("index").value && { index: $("index").value }) };
  if (query.file) {
    const form = new FormData();
    form.append("file", query.file);
    for (const [name, value] of Object.entries(options)) form.append(name, value);
    return api("v1/search/image", { method: "POST", body: form });
  }
  return api("v1/search", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...query, ...options }),
  });
}

async function search(offset = 0) {
  const turn = ++latest;
  $("results").classList.add("stale");
  $("hints").hidden = true;
  say("Searching…");
  try {
    const found = await ask(offset);
    if (turn === latest) show(found, offset);
  } catch (error) {
    if (turn === latest) say(error.message, true);
  }
}

function show(found, offset) {
  if (!offset) $("results").replaceChildren();
  $("results").append(...found.results.map(tile));
  $("results").classList.remove("stale");
  $("more").hidden = found.next_offset === null;
  $("more").onclick = () => search(found.next_offset);
  const shown = $("results").children.length;
  const images = shown === 1 ? "1 image" : `${shown} images, best first`;
  say(shown ? `${images}, in ${Math.round(found.took_ms.total)} ms` : "Nothing was found.");
}

function tile(result) {
  const item = $("result").content.cloneNode(true);
  const name = result.uri.split("/").pop();
  item.querySelector("a").href = result.image.slice(1);
  item.querySelector("img").src = result.thumbnail.slice(1);
  item.querySelector("img").alt = name;
  item.querySelector(".name").textContent = name;
  item.querySelector(".name").title = [result.uri, ...Object.entries(result.metadata).map((pair) => pair.join(": "))].join("\n");
  item.querySelector(".score").textContent = result.score.toFixed(3);
  item.querySelector(".similar").onclick = () => like({ id: result.id }, result.thumbnail.slice(1));
  return item;
}

function say(sentence, wrong = false) {
  $("state").textContent = sentence;
  $("state").classList.toggle("wrong", wrong);
  if (wrong) {
    $("results").replaceChildren();
    $("more").hidden = true;
  }
}

function words(text) {
  text = text.trim();
  if (!text) return;
  $("text").value = text;
  $("query").hidden = true;
  query = { text };
  history.replaceState(null, "", `?q=${encodeURIComponent(text)}`);
  search();
}

function like(what, picture) {
  URL.revokeObjectURL($("example").src);
  $("example").src = picture;
  $("query").hidden = false;
  $("text").value = "";
  query = what;
  history.replaceState(null, "", location.pathname);
  scrollTo({ top: 0 });
  search();
}

function upload(file) {
  if (file) like({ file }, URL.createObjectURL(file));
}

async function describe() {
  try {
    const { indexes, problems } = await api("v1/indexes");
    $("about").textContent = indexes
      .map((one) => `${one.index}: ${one.images.toLocaleString()} images, ${one.model}`)
      .join(" · ");
    $("index").replaceChildren(...indexes.map((one) => new Option(one.index, one.index)));
    $("index").hidden = indexes.length < 2;
    const wrong = Object.entries(problems).map(([index, reason]) => `Index ${index} is not up to date: ${reason}`);
    if (wrong.length) say(wrong.join("\n"), true);
    else if (!indexes.length)
      say("There is no index yet. Make one with: controller run-pipeline SOURCE (on one machine: --local)", true);
  } catch (error) {
    say(error.message, true);
  }
}

async function start() {
  await describe();
  if (!$("login").hidden) return;
  if (query) search();
  else words(new URLSearchParams(location.search).get("q") || "");
}

$("login").onsubmit = (event) => {
  event.preventDefault();
  logIn($("key").value);
};
$("search").onsubmit = (event) => {
  event.preventDefault();
  words($("text").value);
};
$("index").onchange = () => query && (query.id ? words($("text").value) : search());
$("file").onchange = () => {
  upload($("file").files[0]);
  $("file").value = "";
};
for (const hint of $("hints").querySelectorAll("button")) hint.onclick = () => words(hint.textContent);

document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
};
document.ondragleave = (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
};
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  upload(event.dataTransfer.files[0]);
};

await start();
