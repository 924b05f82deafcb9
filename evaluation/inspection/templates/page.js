"use strict";
// The table of queries or clips. All texts become text nodes of the page, and are never interpreted as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const isQueries = data.kind === "queries";
const several = data.systems.length > 1;
const count = isQueries ? data.queries.length : data.clips.length;
const PAGE = 100; // number of rows that are added at once
const FIRST = 10; // maximum number of clips that are shown for a query
const LONG = 240; // maximum number of letters of a text in a row
const MARKS = [["wrong", "✗ wrong"], ["right", "✓ right"], ["maybe", "? possibly unannotated"]];
const MAYBE = 2;
const state = {
  metric: 0, system: several ? 1 : 0, sort: several ? "difference" : "value0", descending: false,
  shown: PAGE, open: new Set(), search: "", clip: "", show: "all", right: "all", worst: "all",
};
state.descending = data.metrics[0].lower;

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

function shorten(text) {
  const letters = Array.from(text);
  return letters.length > LONG ? letters.slice(0, LONG).join("") + "…" : text;
}

function format(value, digits = 3, signed = false) {
  if (value === null || !isFinite(value)) return "–";
  return (signed && value > 0 ? "+" : "") + value.toFixed(digits).replace("-", "−");
}

// Values of items ----------------------------------------------------------------------------------------------------

const valueOf = (item, system) => data.values[system][state.metric][item];
const differenceOf = item => valueOf(item, state.system) - valueOf(item, 0);
const gainOf = item => (data.metrics[state.metric].lower ? -1 : 1) * differenceOf(item);
const titleOfItem = () => data.metrics[state.metric].title.replace(/^m(AP@|RR)/, "$1"); // mAP is the mean of AP
const textOf = item => isQueries ? data.queries[item] : data.clips[item];
const wordsIn = text => text.split(/\s+/).filter(Boolean).length;

function bestRank(item, system) {
  const ranks = data.answers[system].ranks[item].filter(rank => rank !== null);
  return ranks.length ? Math.min(...ranks) : Infinity;
}

function columns() {
  const list = [{key: "text", title: isQueries ? "Query" : "Clip", value: textOf}];
  const shown = several ? [0, state.system] : [0];
  for (const system of shown) {
    const title = several ? data.systems[system] : titleOfItem();
    list.push({key: "value" + system, title, value: item => valueOf(item, system), number: format,
               extra: several});
  }
  if (several) {
    list.push({key: "difference", title: "Difference", value: differenceOf, number: value => format(value, 3, true)});
  }
  if (isQueries) {
    const number = value => isFinite(value) ? String(value) : "not found";
    list.push({key: "rank", title: "Best rank", value: item => bestRank(item, state.system), number});
    list.push({key: "right", title: "Right clips", value: item => data.right[item].length, number: String, extra: true});
    list.push({key: "words", title: "Words", value: item => wordsIn(textOf(item)), number: String, extra: true});
    return list;
  }
  const predicted = data.predicted[state.system];
  list.push({key: "predicted", title: "Prediction", value: item => predicted[item]});
  list.push({key: "words", title: "Words", value: item => wordsIn(predicted[item]), number: String, extra: true});
  list.push({key: "seconds", title: "Seconds", value: item => data.seconds[item], number: value => format(value, 1),
             extra: true});
  const chances = data.log_probabilities[state.system];
  if (chances) {
    list.push({key: "chance", title: "Log-probability", value: item => chances[item], number: format, extra: true});
  }
  return list;
}

// Filters ------------------------------------------------------------------------------------------------------------

const searched = []; // for each item, the text that the search box searches, in lower case
function searchText(item) {
  if (searched[item] === undefined) {
    const texts = [textOf(item)];
    if (isQueries) texts.push(...data.right[item].map(clip => data.clips[clip]));
    else texts.push(...data.captions[item], ...data.predicted.map(captions => captions[item]));
    searched[item] = texts.join("\n").toLowerCase();
  }
  return searched[item];
}

function hasClip(item, name) {
  const clips = isQueries ? [...data.right[item]] : [item];
  if (isQueries) clips.push(...data.answers[state.system].hits[item].map(hit => hit[0]));
  return clips.some(clip => String(data.clips[clip] ?? clip).toLowerCase().includes(name));
}

const SHOWS = {
  all: ["all", () => true],
  wins: ["wins (the second is better)", item => gainOf(item) > 1e-9],
  losses: ["losses (the first is better)", item => gainOf(item) < -1e-9],
  first: ["a right clip at rank 1", item => bestRank(item, state.system) === 1],
  none: ["no right clip in the first ten", item => bestRank(item, state.system) > FIRST],
  maybe: ["possibly unannotated clips", item => data.answers[state.system].hits[item].some(hit => hit[2] === MAYBE)],
};
const RIGHTS = {all: [1, Infinity], one: [1, 1], "two to four": [2, 4], "five or more": [5, Infinity]};

function selected() {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const name = state.clip.trim().toLowerCase();
  const [least, most] = RIGHTS[state.right];
  let items = [];
  for (let item = 0; item < count; item++) {
    if (!words.every(word => searchText(item).includes(word))) continue;
    if (name && !hasClip(item, name)) continue;
    if (isQueries && (data.right[item].length < least || data.right[item].length > most)) continue;
    if (SHOWS[state.show][1](item)) items.push(item);
  }
  if (state.worst !== "all") {
    const sign = data.metrics[state.metric].lower ? -1 : 1;
    items.sort((a, b) => sign * (valueOf(a, state.system) - valueOf(b, state.system)) || a - b);
    items = items.slice(0, Number(state.worst));
  }
  const column = columns().find(each => each.key === state.sort) || columns()[0];
  return sorted(items, column);
}

function sorted(items, column) {
  const compare = new Intl.Collator("en", {numeric: true}).compare;
  const keys = new Map(items.map(item => [item, column.value(item)]));
  const isMissing = value => value === null || value === Infinity; // such values are sorted to the end
  return items.sort((a, b) => {
    const [one, other] = [keys.get(a), keys.get(b)];
    if (isMissing(one) || isMissing(other)) return isMissing(one) - isMissing(other) || a - b;
    const order = column.number ? one - other : compare(one, other);
    return (state.descending ? -order : order) || a - b;
  });
}

function addFilters() {
  const form = document.getElementById("filters");
  const add = (title, control, key, wide) => {
    control.addEventListener(control.tagName === "SELECT" ? "change" : "input", () => {
      state[key] = key === "metric" || key === "system" ? Number(control.value) : control.value;
      state.shown = PAGE;
      if (key === "metric" || key === "system") state.open.clear();
      if (key === "system" && /^value/.test(state.sort)) state.sort = "difference";
      draw();
    });
    form.append(make("label", {class: wide ? "wide" : null}, title, control));
    return control;
  };
  const choice = options => make("select", {}, ...options.map(([value, text]) => make("option", {value}, text)));
  const what = isQueries ? "Search in queries and names of right clips" : "Search in names and captions";
  add(what, make("input", {type: "search"}), "search", true);
  if (isQueries) add("Clip that is right or found", make("input", {type: "search", id: "clip"}), "clip", true);
  if (data.metrics.length > 1) {
    add("Metric", choice(data.metrics.map((metric, index) => [index, metric.title])), "metric");
  }
  if (data.systems.length > 2) {
    const others = data.systems.map((name, index) => [index, name]).slice(1);
    add("Compare with the first", choice(others), "system");
  }
  const keys = ["all", ...(several ? ["wins", "losses"] : []), ...(isQueries ? ["first", "none", "maybe"] : [])];
  if (keys.length > 1) add("Show", choice(keys.map(key => [key, SHOWS[key][0]])), "show");
  if (isQueries) add("Right clips", choice(Object.keys(RIGHTS).map(key => [key, key])), "right");
  add("Worst", choice(["all", "10", "50", "100"].map(key => [key, key])), "worst");
  form.addEventListener("submit", event => event.preventDefault());
  for (const button of document.querySelectorAll("button[data-clip]")) {
    button.addEventListener("click", () => {
      state.clip = button.dataset.clip;
      document.getElementById("clip").value = state.clip;
      state.shown = PAGE;
      draw();
      document.getElementById("items").scrollIntoView();
    });
  }
}

// The table ----------------------------------------------------------------------------------------------------------

function draw() {
  const list = columns();
  const heads = list.map(column => {
    const isSorted = column.key === state.sort;
    const button = make("button", {type: "button"}, shorten(column.title));
    button.addEventListener("click", () => {
      state.descending = isSorted ? !state.descending : false;
      state.sort = column.key;
      draw();
      [...document.querySelectorAll("#table > thead button")][list.indexOf(column)].focus();
    });
    const direction = isSorted ? (state.descending ? "descending" : "ascending") : "none";
    return make("th", {scope: "col", class: classOf(column), "aria-sort": direction}, button);
  });
  document.querySelector("#table > thead").replaceChildren(make("tr", {}, ...heads));
  const items = selected();
  const rows = [];
  for (const item of items.slice(0, state.shown)) rows.push(...rowsOf(item, list));
  document.querySelector("#table > tbody").replaceChildren(...rows);
  const noun = isQueries ? "queries" : "clips";
  let text = `${items.length.toLocaleString("en")} of ${count.toLocaleString("en")} ${noun}`;
  if (several) {
    const wins = items.filter(item => gainOf(item) > 1e-9).length;
    const losses = items.filter(item => gainOf(item) < -1e-9).length;
    const [first, second] = [data.systems[0], data.systems[state.system]].map(shorten);
    text += `; ${titleOfItem()}: ${second} is better for ${wins}, ${first} for ${losses}, `;
    text += `equal for ${items.length - wins - losses}`;
  }
  document.getElementById("count").textContent = text;
  const more = document.getElementById("more");
  more.hidden = items.length <= state.shown;
  more.textContent = `Show ${Math.min(PAGE, items.length - state.shown)} more`;
}

function classOf(column) {
  return [column.number ? "number" : "", column.extra ? "extra" : ""].join(" ").trim() || null;
}

function rowsOf(item, list) {
  const isOpen = state.open.has(item);
  const button = make("button", {type: "button", class: "open", "aria-expanded": String(isOpen)},
                      make("bdi", {}, shorten(textOf(item)) || "(no text)"));
  const row = make("tr", {class: "row"}, make("th", {scope: "row"}, button));
  for (const column of list.slice(1)) {
    const value = column.value(item);
    const cell = make("td", {class: classOf(column)});
    cell.append(column.number ? column.number(value) : make("bdi", {}, shorten(value)));
    if (column.key === "difference" && Math.abs(value) > 1e-9) cell.classList.add(gainOf(item) > 0 ? "win" : "loss");
    row.append(cell);
  }
  const toggle = () => {
    const opens = !state.open.delete(item);
    button.setAttribute("aria-expanded", String(opens));
    if (!opens) {
      row.nextElementSibling.remove();
      return;
    }
    state.open.add(item);
    row.after(detailRow(item, list.length));
  };
  row.addEventListener("click", event => {
    if (event.target.closest("button") || !String(getSelection())) toggle();
  });
  return isOpen ? [row, detailRow(item, list.length)] : [row];
}

function detailRow(item, width) {
  const cell = make("td", {colspan: width});
  const text = textOf(item);
  if (shorten(text) !== text) cell.append(make("p", {class: "text", tabindex: 0}, make("bdi", {}, text)));
  cell.append(isQueries ? queryDetail(item) : clipDetail(item));
  return make("tr", {class: "detail"}, cell);
}

// Details ------------------------------------------------------------------------------------------------------------

function player(clip) {
  if (!data.sounds[clip]) return make("small", {}, "no sound");
  const audio = make("audio", {controls: true, preload: "none", src: data.sounds[clip],
                               "aria-label": `Sound of ${data.clips[clip]}`});
  audio.addEventListener("error", () => audio.replaceWith(make("small", {}, "The sound cannot be loaded.")));
  return audio;
}

function picture(clip) {
  if (!data.images[clip]) return [];
  const alt = `Spectrogram of ${data.clips[clip]}`;
  return [make("img", {src: data.images[clip], alt, loading: "lazy", width: 320, height: 64})];
}

function card(clip, rank, mark, score, similarity, caption) {
  const [kind, words] = MARKS[mark];
  const head = make("div", {class: "head"}, make("span", {class: "rank"}, rank === null ? "not found" : `${rank}.`),
                    make("span", {class: "badge"}, words));
  if (score !== null) head.append(make("span", {class: "score", title: "score"}, String(score).replace("-", "−")));
  const element = make("li", {class: `card ${kind}`}, head);
  if (typeof clip === "string") {
    element.append(make("bdi", {class: "name"}, clip), make("small", {}, "This clip is not in the split."));
    return element;
  }
  element.append(...picture(clip), make("bdi", {class: "name", tabindex: 0}, data.clips[clip]));
  const text = data.captions[clip][caption];
  if (text !== undefined) {
    const detail = mark === MAYBE ? ` (similarity ${format(similarity, 2)})` : "";
    element.append(make("div", {class: "text", tabindex: text.length > LONG ? 0 : null}, make("bdi", {}, text), detail));
  }
  element.append(player(clip));
  return element;
}

function queryDetail(item) {
  const parts = data.answers.map((answers, system) => {
    const part = make("div", {});
    if (several) {
      const value = `${titleOfItem()} ${format(valueOf(item, system))}`;
      part.append(make("h3", {}, make("bdi", {}, data.systems[system]), ` · ${value}`));
    }
    const hits = answers.hits[item].map(([clip, score, mark, similarity, caption], place) =>
      card(clip, place + 1, mark, score, similarity, caption));
    part.append(make("ol", {class: "hits", "aria-label": `Best clips of ${data.systems[system]}`}, ...hits));
    const missed = data.right[item].map((clip, place) => [clip, answers.ranks[item][place]])
      .filter(([, rank]) => rank === null || rank > FIRST).sort((a, b) => (a[1] ?? Infinity) - (b[1] ?? Infinity));
    if (missed.length) {
      const list = missed.map(([clip, rank]) => card(clip, rank, 1, null, 1, closestCaption(clip, item)));
      part.append(make("h3", {}, `Right clips that are not among the first ${FIRST}`), make("ul", {class: "hits"}, ...list));
    }
    return part;
  });
  return make("div", {class: several ? "systems" : null}, ...parts);
}

const closestCaption = (clip, item) => Math.max(0, data.captions[clip].indexOf(data.queries[item]));
const WORD = /([\p{L}\p{N}]+(?:['’]\p{L}+)?)/u;

// Mark the words of a caption that occur in the references. Return the caption, and a text with their number.
function marked(caption, references) {
  const known = new Set(references.flatMap(text => text.toLowerCase().split(WORD)));
  const parts = caption.split(WORD);
  const content = make("bdi", {});
  let shared = 0;
  parts.forEach((part, place) => {
    const isShared = place % 2 === 1 && known.has(part.toLowerCase());
    shared += isShared;
    content.append(isShared ? make("mark", {}, part) : part);
  });
  return [content, `${shared} of ${(parts.length - 1) / 2} words are in the references`];
}

function clipDetail(clip) {
  const texts = make("div", {});
  data.predicted.forEach((captions, system) => {
    const [content, share] = marked(captions[clip], data.captions[clip]);
    const chances = data.log_probabilities[system];
    const chance = chances ? `; log-probability ${format(chances[clip])}` : "";
    const title = several ? ["Prediction of ", make("bdi", {}, data.systems[system])] : ["Prediction"];
    texts.append(make("h3", {}, ...title), make("p", {class: "prediction text"}, content),
                 make("small", {}, share + chance));
  });
  const references = data.captions[clip].map(text => make("li", {}, make("bdi", {}, text)));
  texts.append(make("h3", {}, "References"), make("ol", {class: "references"}, ...references));
  const heads = ["Metric", ...data.systems].map((name, place) =>
    make("th", {scope: "col", class: place ? "number" : null}, several || !place ? shorten(name) : "Value"));
  const rows = data.metrics.map((metric, index) => make("tr", {}, make("th", {scope: "row"}, metric.title),
    ...data.values.map(values => make("td", {class: "number"}, format(values[index][clip])))));
  const table = make("table", {}, make("caption", {}, "Metrics of the clip"),
                     make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
  const side = make("div", {class: "player"}, ...picture(clip), player(clip), table);
  return make("div", {class: "clip"}, side, texts);
}

// Only one sound plays at a time.
document.addEventListener("play", event => {
  for (const audio of document.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
}, true);
document.getElementById("more").addEventListener("click", () => {
  state.shown += PAGE;
  draw();
});
addFilters();
draw();
