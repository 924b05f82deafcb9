
// Moment retrieval: each query with a timeline of its right windows and of the windows of each system.
const windowsOf = (item, system) => data.answers[system].windows[item]; // each [start, end, score, IoU], best first
const firstIou = (item, system) => windowsOf(item, system)[data.answers[system].first[item]][3];
const bestIou = (item, system) => Math.max(...windowsOf(item, system).map(window => window[3]));

function time(seconds) {
  const minutes = Math.floor(seconds / 60);
  const rest = (seconds - 60 * minutes).toFixed(1);
  return `${minutes}:${rest.padStart(4, "0")}`;
}

// The last second of the timeline. Windows may end after their recording.
function lengthOf(item) {
  const ends = data.right[item].map(window => window[1]);
  data.systems.forEach((_, system) => ends.push(...windowsOf(item, system).map(window => window[1])));
  return Math.max(data.durations[item], data.seconds[data.clipOf[item]] ?? 0, ...ends);
}

// A button on the timeline, which plays the recording from the start of a window.
function windowButton([start, end], length, kindOf, words, play) {
  const text = `${time(start)} to ${time(end)}`;
  const button = make("button", {type: "button", class: `window ${kindOf}`, title: `${text}${words}`,
                                 "aria-label": `Play from ${text}${words}`});
  const [from, to] = [Math.max(0, start), Math.min(length, end)];
  button.style.left = `${100 * from / length}%`;
  button.style.width = `${100 * Math.max(0, to - from) / length}%`;
  button.addEventListener("click", () => play(start));
  return button;
}

function track(label, buttons) {
  return make("li", {}, make("span", {class: "label"}, ...label), make("div", {class: "track"}, ...buttons));
}

function systemTracks(item, system, length, play) {
  const answers = data.answers[system];
  const rows = windowsOf(item, system).map((window, place) => {
    const [, , score, iou] = window;
    const words = `, rank ${place + 1}${score === null ? "" : `, score ${score}`}, IoU ${format(iou, 2)}`;
    const label = [make("span", {class: "rank"}, `${place + 1}.`), `${iou >= data.recalls[0] ? "✓" : "✗"} IoU ${format(iou, 2)}`];
    if (score !== null) label.push(make("span", {class: "score", title: "score"}, String(score).replace("-", "−")));
    return track(label, [windowButton(window, length, iou >= data.recalls[0] ? "hit" : "miss", words, play)]);
  });
  const first = answers.first[item];
  const recalls = data.recalls.map((threshold, place) => `R1@${threshold} ${verdict(answers.recalled[item][place])}`);
  const facts = [`${titleOfItem()} ${format(valueOf(item, system))}`, ...recalls,
                 `IoU of the first window ${format(firstIou(item, system))}`,
                 `best IoU ${format(bestIou(item, system))}`];
  if (first) facts.push(`R1 uses the window of rank ${first + 1}, which is first in the file`);
  return [make("h3", {}, make("bdi", {}, data.systems[system])), make("p", {class: "note"}, facts.join(" · ")),
          make("ol", {class: "timeline", "aria-label": `Windows of ${data.systems[system]}, best first`}, ...rows)];
}

function axis(length) {
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find(each => length / each <= 6) || length;
  const marks = [];
  for (let second = 0; second <= length; second += step) {
    const mark = make("span", {}, time(second).replace(/[.]0$/, ""));
    mark.style.left = `${100 * second / length}%`;
    if (second > 0.9 * length) mark.className = "last"; // its text ends at the mark, so that it fits
    marks.push(mark);
  }
  return make("div", {class: "axis", "aria-hidden": true}, ...marks);
}

function momentDetail(item) {
  const clip = data.clipOf[item];
  const length = lengthOf(item);
  const sound = player(clip);
  const detail = make("div", {class: "moments"});
  const play = seconds => {
    if (!sound.play) return;
    sound.currentTime = Math.max(0, seconds);
    sound.play();
  };
  const right = data.right[item].map((window, place) => windowButton(window, length, "truth", `, right window ${place + 1}`, play));
  const [image] = picture(clip);
  if (image) image.style.width = `${100 * (data.seconds[clip] ?? length) / length}%`;
  detail.append(
    make("p", {class: "note"}, "Recording ", make("bdi", {}, data.clips[clip]), ` · id `, make("bdi", {}, data.ids[item])),
    sound,
    make("ol", {class: "timeline"}, ...(image ? [track([], [image])] : []), track(["right windows"], right)),
    ...data.systems.flatMap((_, system) => systemTracks(item, system, length, play)),
    make("ol", {class: "timeline"}, make("li", {}, make("span", {class: "label"}, "time"), axis(length))));
  // A line on every track shows the position in the recording.
  const lines = [...detail.querySelectorAll(".track")].map(each => each.appendChild(make("span", {class: "now", hidden: true})));
  sound.addEventListener("timeupdate", () => {
    for (const line of lines) {
      line.hidden = false;
      line.style.left = `${100 * Math.min(1, sound.currentTime / length)}%`;
    }
  });
  return detail;
}

const IOUS = {all: [0, 2], "below .3": [0, 0.3], ".3 to .5": [0.3, 0.5], ".5 to .7": [0.5, 0.7], ".7 or more": [0.7, 2]};

start({
  head: "Query",
  texts: data.queries,
  columns: () => [
    {key: "first", title: "First IoU", value: item => firstIou(item, state.system), number: value => format(value, 2)},
    {key: "best", title: "Best IoU", value: item => bestIou(item, state.system), number: value => format(value, 2),
     extra: true},
    {key: "right", title: "Right windows", value: item => data.right[item].length, number: String, extra: true},
    {key: "seconds", title: "Seconds", value: item => data.durations[item], number: value => format(value, 1), extra: true},
  ],
  search: "Search in queries, ids and names of recordings",
  searched: item => [data.ids[item], data.clips[data.clipOf[item]]],
  shows: {
    wrong: ["first window wrong at IoU .5", item => !data.answers[state.system].recalled[item][0]],
    late: ["best window is not the first one", item => bestIou(item, state.system) > firstIou(item, state.system)],
  },
  filters: [
    {key: "clip", title: "Recording", keep: (item, text) =>
      data.clips[data.clipOf[item]].toLowerCase().includes(text.trim().toLowerCase())},
    {key: "iou", title: "IoU of the first window", options: Object.keys(IOUS), keep: (item, choice) => {
      const [least, most] = IOUS[choice];
      return firstIou(item, state.system) >= least && firstIou(item, state.system) < most;
    }},
  ],
  detail: momentDetail,
});
