
// Retrieval: each query with the best clips of each system, and its right clips.
const FIRST = 10; // maximum number of clips that are shown for a query
const MARKS = [["wrong", "✗ wrong"], ["right", "✓ right"], ["maybe", "? possibly unannotated"]];
const MAYBE = 2;
const RIGHTS = {all: [1, Infinity], one: [1, 1], "two to four": [2, 4], "five or more": [5, Infinity]};

function bestRank(item, system) {
  const ranks = data.answers[system].ranks[item].filter(rank => rank !== null);
  return ranks.length ? Math.min(...ranks) : Infinity;
}

function hasClip(item, name) {
  const clips = [...data.right[item], ...data.answers[state.system].hits[item].map(hit => hit[0])];
  return clips.some(clip => String(data.clips[clip] ?? clip).toLowerCase().includes(name));
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

start({
  head: "Query",
  texts: data.queries,
  columns: () => [
    {key: "rank", title: "Best rank", value: item => bestRank(item, state.system),
     number: value => isFinite(value) ? String(value) : "not found"},
    {key: "right", title: "Right clips", value: item => data.right[item].length, number: String, extra: true},
    {key: "words", title: "Words", value: item => wordsIn(textOf(item)), number: String, extra: true},
  ],
  search: "Search in queries and names of right clips",
  searched: item => data.right[item].map(clip => data.clips[clip]),
  shows: {
    first: ["a right clip at rank 1", item => bestRank(item, state.system) === 1],
    none: ["no right clip in the first ten", item => bestRank(item, state.system) > FIRST],
    maybe: ["possibly unannotated clips", item => data.answers[state.system].hits[item].some(hit => hit[2] === MAYBE)],
  },
  filters: [
    {key: "clip", title: "Clip that is right or found", keep: (item, text) => {
      const name = text.trim().toLowerCase();
      return !name || hasClip(item, name);
    }},
    {key: "right", title: "Right clips", options: Object.keys(RIGHTS), keep: (item, choice) => {
      const [least, most] = RIGHTS[choice];
      return data.right[item].length >= least && data.right[item].length <= most;
    }},
  ],
  detail: queryDetail,
});
