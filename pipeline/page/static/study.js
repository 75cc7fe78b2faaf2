// A blind comparison: clips in random order, sides of the sheet that the person drew, votes that end in one file.
"use strict";

(() => {
  const study = visavis.data("study");
  const place = `visavis-study-${study.study}`;
  const at = (id) => document.getElementById(id);
  const [left, right] = [at("left"), at("right")];

  // ---- what is remembered

  function random(below) {
    const limit = Math.floor(2 ** 32 / below) * below; // so that no number is more likely than another
    const drawn = new Uint32Array(1);
    do crypto.getRandomValues(drawn);
    while (drawn[0] >= limit);
    return drawn[0] % below;
  }

  function shuffled(count) {
    const order = Array.from({length: count}, (_, n) => n);
    for (let n = count - 1; n > 0; n--) {
      const other = random(n + 1);
      [order[n], order[other]] = [order[other], order[n]];
    }
    return order;
  }

  /** A new person. `#sheet=3` in the address hands a sheet out, else one is drawn. */
  function newcomer() {
    const asked = Number(/^#sheet=(\d{1,4})$/.exec(location.hash)?.[1] ?? NaN);
    const bytes = crypto.getRandomValues(new Uint8Array(8));
    return {
      person: Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(""),
      sheet: Number.isInteger(asked) ? asked % study.sheets.length : random(study.sheets.length),
      order: shuffled(study.trials.length),
      begun: "",
      ended: "",
      place: 0,
      answers: {},
    };
  }

  const isOrder = (order) =>
    Array.isArray(order) && order.length === study.trials.length && new Set(order).size === order.length &&
    order.every((n) => Number.isInteger(n) && n >= 0 && n < order.length);

  function remembered() {
    try {
      const found = JSON.parse(localStorage.getItem(place));
      if (found && isOrder(found.order) && study.sheets[found.sheet] && found.answers && typeof found.answers === "object") return found;
    } catch {
      at("memory").hidden = false;
    }
    return newcomer();
  }

  function remember() {
    try {
      localStorage.setItem(place, JSON.stringify(state));
    } catch {
      at("memory").hidden = false;
    }
  }

  let state = remembered();

  // ---- votes

  const trialAt = (n) => study.trials[state.order[n]];

  /** Clips as this person sees them: [left, right]. */
  function sides(n) {
    const {clips} = trialAt(n);
    return study.sheets[state.sheet][state.order[n]] === "1" ? [clips[1], clips[0]] : clips;
  }

  const answersOf = (n) => (state.answers[trialAt(n).code] ??= {});
  const complete = (n) => study.questions.every(({code}) => answersOf(n)[code]);
  const answered = () => study.trials.filter((_, n) => complete(n)).length;

  function file() {
    const votes = [];
    state.order.forEach((_, n) => {
      for (const {code} of study.questions) {
        const given = answersOf(n)[code];
        if (given) votes.push({trial: trialAt(n).code, question: code, left: sides(n)[0], ...given});
      }
    });
    const {person, sheet, begun, ended} = state;
    return JSON.stringify({format: "visavis-votes", version: 1, study: study.study, person, sheet, begun, ended, votes}, null, 1);
  }

  const fileName = () => `votes-${study.study}-${state.person}.json`;

  const download = () => visavis.save(fileName(), file());

  // ---- the clips

  const shown = {trial: 0, whole: false, plays: 0, since: 0};
  const player = visavis.inStep(left, right, {
    changed: showPlayer,
    whole() {
      shown.plays++;
      shown.whole = true;
      showQuestions();
    },
    broken: fault,
  });

  function fault() {
    at("fault").textContent = "A clip of this page cannot be played. Was its folder copied whole?";
    at("fault").hidden = false;
  }

  // ---- what is seen

  function show(name) {
    for (const each of ["intro", "trial", "done"]) at(each).hidden = each !== name;
    if (name !== "trial") player.pause();
  }

  function showPlayer() {
    at("play").textContent = player.playing ? "Pause" : "Play";
    at("hint").textContent = shown.whole ? "" : "Watch both once to answer.";
  }

  const active = () => study.questions.find(({code}) => !answersOf(shown.trial)[code])?.code;

  function showQuestions() {
    const choices = [["left", "1  Left"], ...(study.ties ? [["same", "0  No difference"]] : []), ["right", "2  Right"]];
    const given = answersOf(shown.trial);
    const focused = document.activeElement?.dataset?.answer;
    at("questions").replaceChildren(
      ...study.questions.map(({code, text}) =>
        visavis.el("fieldset", {class: "study-question", "data-active": code === active(), "data-question": code},
          visavis.el("legend", {}, text),
          visavis.el("div", {class: "study-answers"},
            ...choices.map(([answer, label]) =>
              visavis.el("button", {type: "button", "data-answer": `${code} ${answer}`, disabled: !shown.whole,
                "aria-pressed": String(given[code]?.answer === answer), onclick: () => vote(code, answer)}, label))))));
    if (focused) at("questions").querySelector(`[data-answer="${CSS.escape(focused)}"]`)?.focus();
  }

  function showTrial(n) {
    player.pause();
    Object.assign(shown, {trial: n, whole: Object.keys(answersOf(n)).length > 0, plays: 0, since: performance.now()});
    state.place = n;
    remember();
    at("fault").hidden = true;
    sides(n).forEach((clip, side) => {
      const video = side ? right : left;
      video.src = `clips/${clip}.mp4`;
      video.load();
    });
    at("place").textContent = `${n + 1} of ${study.trials.length}`;
    at("progress").value = answered() / study.trials.length;
    at("back").disabled = n === 0;
    showQuestions();
    show("trial");
    at("main").focus(); // so that the space bar plays, and does not press what was pressed last
    player.play(true);
  }

  function vote(question, answer) {
    if (!shown.whole || at("trial").hidden || (answer === "same" && !study.ties)) return;
    const given = answersOf(shown.trial);
    const before = given[question] ?? {seconds: 0, plays: 0};
    const now = performance.now();
    given[question] = {
      answer,
      seconds: Math.round(before.seconds * 1000 + now - shown.since) / 1000,
      plays: before.plays + shown.plays,
    };
    shown.since = now;
    shown.plays = 0;
    remember();
    showQuestions();
    if (!complete(shown.trial)) return;
    const next = state.order.findIndex((_, n) => n > shown.trial && !complete(n));
    const any = next >= 0 ? next : state.order.findIndex((_, n) => !complete(n));
    if (any >= 0) showTrial(any);
    else finish();
  }

  function finish() {
    state.ended = new Date().toISOString();
    remember();
    showDone();
    download();
  }

  function showDone() {
    at("file").textContent = fileName();
    at("text").value = file();
    show("done");
    at("main").focus();
  }

  // ---- what is pressed

  at("start").addEventListener("click", () => {
    state.begun ||= new Date().toISOString();
    showTrial(state.place);
  });
  at("play").addEventListener("click", () => (player.playing ? player.pause() : player.play(false)));
  at("back").addEventListener("click", () => shown.trial > 0 && showTrial(shown.trial - 1));
  at("save").addEventListener("click", download);
  at("download").addEventListener("click", download);
  at("copy").addEventListener("click", async () => {
    await visavis.toClipboard(at("text").value);
    at("text").select();
    at("copied").textContent = "Copied.";
  });
  at("again").addEventListener("click", () => {
    state = newcomer();
    remember();
    show("intro");
  });

  document.addEventListener("keydown", (event) => {
    if (at("trial").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const answer = {1: "left", 2: "right", 0: "same"}[event.key];
    const question = active() ?? study.questions[0].code;
    if (answer) vote(question, answer);
    else if (event.key === " " && event.target.tagName !== "BUTTON") at("play").click();
    else if (event.key === "ArrowLeft" || event.key === "Backspace") at("back").click();
    else return;
    event.preventDefault();
  });

  const minutes = Math.max(1, Math.ceil((study.trials.length * (study.seconds * 2.5 + 3 * study.questions.length)) / 60));
  at("count").textContent = String(study.trials.length);
  at("minutes").textContent = minutes === 1 ? "a minute" : `${minutes} minutes`;
  if (state.ended) showDone();
  else if (state.begun) showTrial(Math.min(state.place, study.trials.length - 1));
  else show("intro");
})();
