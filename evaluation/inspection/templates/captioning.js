
// Captioning: each clip with the caption of each system, and its references.
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

start({
  head: "Clip",
  texts: data.clips,
  columns: () => {
    const predicted = data.predicted[state.system];
    const list = [
      {key: "predicted", title: "Prediction", value: item => predicted[item]},
      {key: "words", title: "Words", value: item => wordsIn(predicted[item]), number: String, extra: true},
      {key: "seconds", title: "Seconds", value: item => data.seconds[item], number: value => format(value, 1), extra: true},
    ];
    const chances = data.log_probabilities[state.system];
    if (chances) {
      list.push({key: "chance", title: "Log-probability", value: item => chances[item], number: format, extra: true});
    }
    return list;
  },
  search: "Search in names and captions",
  searched: item => [...data.captions[item], ...data.predicted.map(captions => captions[item])],
  shows: {},
  filters: [],
  detail: clipDetail,
});
