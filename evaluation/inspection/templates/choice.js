
// Question answering: each question with its clip, its options, and the option that each system chose.
const isRight = (item, system) => data.chosen[system][item] === data.right[item];
const answerOf = (item, system) => data.options[item][data.chosen[system][item]];
const rightOf = item => data.options[item][data.right[item]];
const labels = texts => [...new Set(texts)].sort();

function optionTable(item) {
  const heads = ["Option", ...data.systems].map(name => make("th", {scope: "col"}, make("bdi", {}, shorten(name))));
  const rows = data.options[item].map((option, index) => {
    const isTrue = index === data.right[item];
    const head = make("th", {scope: "row"}, make("bdi", {}, option));
    if (isTrue) head.append(" ", make("span", {class: "badge"}, "✓ right answer"));
    const cells = data.chosen.map(chosen =>
      make("td", {class: chosen[item] !== index ? null : isTrue ? "win" : "loss"},
           chosen[item] === index ? verdict(isTrue) : make("span", {class: "hidden"}, "not chosen")));
    return make("tr", {class: isTrue ? "right" : null}, head, ...cells);
  });
  return make("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "Options"},
              make("table", {class: "options"}, make("caption", {}, "Options, and the answers of the systems"),
                   make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows)));
}

function questionDetail(item) {
  const clip = data.clipOf[item];
  const facts = [["Clip", data.clips[clip]], ["Id", data.ids[item]], ["Type", data.types[item]], ["Part", data.parts[item]]];
  const list = make("dl", {class: "facts"}, ...facts.filter(([, text]) => text !== "–").map(([title, text]) =>
    make("div", {}, make("dt", {}, title), make("dd", {}, make("bdi", {}, text)))));
  return make("div", {class: "clip"}, make("div", {class: "player"}, ...picture(clip), player(clip), list), optionTable(item));
}

function labelFilter(key, title, texts) {
  const options = ["all", ...labels(texts)];
  return options.length < 3 ? [] : [{key, title, options, keep: (item, choice) => choice === "all" || texts[item] === choice}];
}

function labelColumn(key, title, texts) {
  return labels(texts).length < 2 ? [] : [{key, title, value: item => texts[item], extra: true}];
}

start({
  head: "Question",
  texts: data.questions,
  valueTitle: "Result",
  format: value => verdict(value === 1),
  columns: () => [
    {key: "answer", title: "Answer", value: item => answerOf(item, state.system),
     mark: item => isRight(item, state.system) ? "win" : "loss"},
    {key: "right", title: "Right answer", value: rightOf, extra: true},
    ...labelColumn("type", "Type", data.types),
    ...labelColumn("part", "Part", data.parts),
  ],
  search: "Search in questions, options, ids and names of clips",
  searched: item => [...data.options[item], data.ids[item], data.clips[data.clipOf[item]]],
  shows: {
    wrong: ["wrong answers", item => !isRight(item, state.system)],
    right: ["right answers", item => isRight(item, state.system)],
    ...(several ? {never: ["wrong answers of all systems", item => !data.chosen.some((_, system) => isRight(item, system))]} : {}),
  },
  filters: [...labelFilter("type", "Type", data.types), ...labelFilter("part", "Part", data.parts)],
  detail: questionDetail,
});
