// Puts the parts together. `worldView` is for the browser's console, and for tests.

globalThis.worldView = { page, episodes, here };

function fillFacts() {
  for (const [name, text] of Object.entries(page.facts)) {
    byId("facts").append(element("dt", {}, name), element("dd", {}, text));
  }
}

function leaveOut(part, reason) {
  byId(`${part}-absent`).textContent = reason;
  byId(`${part}-absent`).hidden = false;
  byId(`${part}-body`).hidden = true;
}

async function startDecoder() {
  if (page.latents.absent) {
    leaveOut("latents", `This part is left out: ${page.latents.absent}.`);
    return null;
  }
  try {
    await startLibrary();
    await loadDirections();
    return new Decoder(page.latents.operations, await weightsOf(page.latents.weights));
  } catch (error) {
    for (const part of ["latents", "dream"]) leaveOut(part, `This browser cannot run the networks (${error.message}).`);
    return null;
  }
}

async function startLatents(decoder) {
  const latents = new LatentsPart(decoder);
  await Promise.all(episodes.slice(0, 2).map((episode) => episode.load()));
  latents.begin();
  return latents;
}

async function startDream(decoder) {
  const model = new WorldModel(page.dream, await weightsOf(page.dream.weights));
  const dream = new DreamPart(decoder, model);
  dream.begin();
  Object.assign(worldView, { model, dream });
}

// To the part that the address names: it moved down while the parts before it were filled. Scrolling is smooth only from then on:
// the browser's own way there, still under way, would end elsewhere.
function goToPart() {
  const part = location.hash && document.getElementById(location.hash.slice(1));
  if (part) part.scrollIntoView();
  document.documentElement.classList.add("filled");
}

async function start() {
  fillFacts();
  for (const name of ["dream", "to-dream"]) byId(name).hidden = !page.dream;
  const decoder = await startDecoder();
  byId("library-note").hidden = !decoder;
  const part = new EpisodesPart(decoder);
  Object.assign(worldView, { decoder, part });
  await part.open(episodes[0]);
  if (decoder) worldView.latents = await startLatents(decoder);
  if (decoder && page.dream) await startDream(decoder);
  goToPart();
}

worldView.ready = start();
