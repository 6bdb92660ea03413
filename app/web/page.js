// The page: asks, shows the answer as it comes, opens citations, uploads files. Whatever comes from
// documents, users or the model is set as text, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const make = (tag, name, text) => {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};
const headers = (more) => {
  const key = $("key").value.trim();
  return key ? { ...more, Authorization: `Bearer ${key}` } : { ...more };
};
const turns = [];

// Where uploads may go; a choice is only shown where there is one. Questions go to all.
async function showStores() {
  const reply = await fetch("/v1/vector_stores?order=asc&limit=100", { headers: headers() });
  if (!reply.ok) return;
  const stores = (await reply.json()).data;
  const chosen = $("store").value;
  $("store").replaceChildren(
    ...stores.map((store) => {
      const option = make("option", "", store.name);
      option.value = store.id;
      return option;
    }),
  );
  if (stores.some((store) => store.id === chosen)) $("store").value = chosen;
  $("choice").hidden = stores.length < 2;
}

async function reason(reply) {
  try {
    return (await reply.json()).error.message;
  } catch {
    return `the server answered with status ${reply.status}`;
  }
}

async function* chunks(reply) {
  const reader = reply.body.getReader(); // not every browser can iterate over a body
  const decoder = new TextDecoder();
  let held = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    held += decoder.decode(part.value, { stream: true });
    const lines = held.split("\n");
    held = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}

function showSource(turn, note) {
  turn.querySelector(".source")?.remove();
  const box = make("blockquote", "source");
  const page = note.page ? `, page ${note.page}` : "";
  box.append(make("cite", "", `[${note.number}] ${note.filename}${page}`), make("span", "", note.quote));
  turn.append(box);
}

function withMarks(turn, place, text, notes) {
  place.textContent = "";
  let at = 0;
  for (const note of [...notes].sort((a, b) => a.index - b.index)) {
    // index counts characters (code points), JavaScript's strings UTF-16 units.
    const start = [...text].slice(0, note.index).join("").length;
    const mark = `[${note.number}]`;
    place.append(text.slice(at, start));
    const button = make("button", note.verified ? "mark" : "mark unsure", mark);
    button.title = note.filename;
    button.type = "button";
    button.addEventListener("click", () => showSource(turn, note));
    place.append(button);
    at = start + mark.length;
  }
  place.append(text.slice(at));
}

async function ask(question) {
  const turn = make("article", "turn");
  const place = make("p", "answer");
  turn.append(make("p", "asked", question), place);
  $("talk").append(turn);
  turns.push({ role: "user", content: question });
  let text = "";
  let notes = [];
  try {
    const reply = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: headers({ "Content-Type": "application/json" }),
      body: JSON.stringify({ model: "vademecum", messages: turns.slice(-9), stream: true }),
    });
    if (!reply.ok) throw new Error(await reason(reply));
    for await (const chunk of chunks(reply)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const delta = chunk.choices?.[0]?.delta ?? {};
      if (delta.content) place.textContent = text += delta.content;
      if (delta.annotations) notes = delta.annotations;
    }
    withMarks(turn, place, text, notes);
    turns.push({ role: "assistant", content: text });
  } catch (error) {
    turns.pop();
    turn.append(make("p", "error", error.message));
  }
}

async function follow(store, file, line) {
  while (file.status === "in_progress") {
    await new Promise((done) => setTimeout(done, 500));
    const reply = await fetch(`/v1/vector_stores/${store}/files/${file.id}`, { headers: headers() });
    if (!reply.ok) throw new Error(await reason(reply));
    file = await reply.json();
  }
  const why = file.last_error ? `: ${file.last_error.message}` : "";
  line.textContent = `${file.filename}: ${file.status}${why}`;
}

async function upload(files) {
  await showStores();
  const store = $("store").value;
  for (const one of files) {
    const line = make("li", "", `${one.name}: sending`);
    $("uploads").append(line);
    try {
      if (!store) throw new Error("there is no knowledge base that may be seen; is a key needed?");
      const form = new FormData();
      form.append("files", one);
      const reply = await fetch(`/v1/vector_stores/${store}/upload`, {
        method: "POST", headers: headers(), body: form,
      });
      if (!reply.ok) throw new Error(await reason(reply));
      line.textContent = `${one.name}: being read`;
      await follow(store, (await reply.json()).data[0], line);
    } catch (error) {
      line.textContent = `${one.name}: ${error.message}`;
      line.className = "error";
    }
  }
}

async function watchState() {
  try {
    const state = await (await fetch("/health/ready")).json();
    const missing = Object.entries(state.parts).filter(([, up]) => !up).map(([part]) => part);
    $("state").textContent = missing.length ? `waiting for ${missing.join(", ").replace("_", " ")}` : "ready";
  } catch {
    $("state").textContent = "the server does not answer";
  }
  setTimeout(watchState, 5000);
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question) return;
  $("question").value = "";
  const button = event.target.querySelector("button");
  button.disabled = true;
  await ask(question);
  button.disabled = false;
  $("question").focus();
});
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
$("files").addEventListener("change", (event) => upload([...event.target.files]));
for (const name of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") upload([...event.dataTransfer.files]);
  });
}
// Kept while the tab is open, and nowhere else.
$("key").value = sessionStorage.getItem("key") ?? "";
$("key").addEventListener("change", () => {
  sessionStorage.setItem("key", $("key").value.trim());
  showStores();
});
showStores();
watchState();
