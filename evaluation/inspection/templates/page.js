"use strict";
// The table of items. All texts become text nodes of the page, and are never interpreted as HTML. The script of the kind
// of answers follows this one, and calls `start` with what is special about the kind.
const data = JSON.parse(document.getElementById("data").textContent);
const several = data.systems.length > 1;
const PAGE = 100; // number of rows that are added at once
const LONG = 240; // maximum number of letters of a text in a row
const state = {
  metric: 0, system: several ? 1 : 0, sort: several ? "difference" : "value0", descending: false,
  shown: PAGE, open: new Set(), search: "", show: "all", worst: "all",
};
state.descending = data.metrics[0].lower;
// What is special about the kind of answers:
// - head: the head of the first column. texts: the text of each item in this column.
// - columns(): the columns after the metrics. format(value), valueTitle: optionally, how values of a metric are shown.
// - search: the title of the search box. searched(item): the texts that it searches, besides the item's own.
// - shows: further options of the filter "Show", each [title, test of an item].
// - filters: further filters, each {key, title, options, keep(item, value)}. Without options, it is a text box.
// - detail(item): the details of an item.
let kind;

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
const titleOfItem = () => data.metrics[state.metric].title.replace(/^m(?=AP)|^M(?=RR)/, ""); // mAP is the mean of AP
const textOf = item => kind.texts[item];
const verdict = isTrue => isTrue ? "✓ right" : "✗ wrong";
const wordsIn = text => text.split(/\s+/).filter(Boolean).length;

function columns() {
  const list = [{key: "text", title: kind.head, value: textOf}];
  const shown = several ? [0, state.system] : [0];
  for (const system of shown) {
    const title = several ? data.systems[system] : kind.valueTitle || titleOfItem();
    list.push({key: "value" + system, title, value: item => valueOf(item, system), number: kind.format || format,
               isText: Boolean(kind.format), extra: several});
  }
  if (several) {
    list.push({key: "difference", title: "Difference", value: differenceOf, number: value => format(value, 3, true)});
  }
  return [...list, ...kind.columns()];
}

// Filters ------------------------------------------------------------------------------------------------------------

const searched = []; // for each item, the text that the search box searches, in lower case
function searchText(item) {
  if (searched[item] === undefined) searched[item] = [textOf(item), ...kind.searched(item)].join("\n").toLowerCase();
  return searched[item];
}

const SHOWS = {
  all: ["all", () => true],
  wins: ["wins (the second is better)", item => gainOf(item) > 1e-9],
  losses: ["losses (the first is better)", item => gainOf(item) < -1e-9],
};

function selected() {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const shows = {...SHOWS, ...kind.shows};
  let items = [];
  for (let item = 0; item < kind.texts.length; item++) {
    if (!words.every(word => searchText(item).includes(word))) continue;
    if (!kind.filters.every(filter => filter.keep(item, state[filter.key]))) continue;
    if (shows[state.show][1](item)) items.push(item);
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
  const sameText = options => choice(options.map(option => [option, option]));
  add(kind.search, make("input", {type: "search"}), "search", true);
  const [boxes, lists] = [kind.filters.filter(each => !each.options), kind.filters.filter(each => each.options)];
  for (const {key, title} of boxes) add(title, make("input", {type: "search", id: key}), key, true);
  if (data.metrics.length > 1) {
    add("Metric", choice(data.metrics.map((metric, index) => [index, metric.title])), "metric");
  }
  if (data.systems.length > 2) {
    const others = data.systems.map((name, index) => [index, name]).slice(1);
    add("Compare with the first", choice(others), "system");
  }
  const {all, wins, losses} = SHOWS;
  const shows = {all, ...(several ? {wins, losses} : {}), ...kind.shows};
  if (Object.keys(shows).length > 1) add("Show", choice(Object.entries(shows).map(([key, [text]]) => [key, text])), "show");
  for (const {key, title, options} of lists) add(title, sameText(options), key);
  add("Worst", sameText(["all", "10", "50", "100"]), "worst");
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
  let text = `${items.length.toLocaleString("en")} of ${kind.texts.length.toLocaleString("en")} ${data.kind}`;
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
  const kindOf = column.isText ? "verdict" : column.number ? "number" : "";
  return [kindOf, column.extra ? "extra" : ""].join(" ").trim() || null;
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
    if (column.mark) cell.classList.add(column.mark(item));
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
  cell.append(kind.detail(item));
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

// Only one sound plays at a time.
document.addEventListener("play", event => {
  for (const audio of document.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
}, true);
document.getElementById("more").addEventListener("click", () => {
  state.shown += PAGE;
  draw();
});

function start(what) {
  kind = what;
  for (const {key, options} of kind.filters) state[key] = options ? options[0] : "";
  addFilters();
  draw();
}
