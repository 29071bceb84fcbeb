"""How fast a page of wm-view decodes and dreams in headless Chromium, on the CPU.

    python benchmarks/view.py PAGE [--seconds 5]

Frames of the decoder alone, steps of the dream one after the other, and frames that the running dream shows, whose clock
allows 50 a second.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from _browser import Browser
from _machine import describe_machine

REPEATED = """{
  const work = () => %s, end = performance.now() + 1000 * %s;
  for (let i = 0; i < 20; i++) work();
  let count = 0, start = performance.now();
  while (performance.now() < end) { work(); count++; }
  return count / ((performance.now() - start) / 1000);
}"""

PLAYED = """{
  const { dream } = worldView;
  dream.step = function (now) { Object.getPrototypeOf(this).step.call(this, now); return true; };
  dream.begin(); dream.player.start();
  const before = dream.steps, start = performance.now();
  await new Promise((done) => setTimeout(done, 1000 * %s));
  const count = dream.steps - before, passed = performance.now() - start;
  dream.player.stop();
  return count / (passed / 1000);
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    print(describe_machine("torch", "worldmodel_v"))
    print(f"{args.page}: {args.page.stat().st_size / 1e6:.2f} MB")
    with tempfile.TemporaryDirectory() as profile, Browser(args.page, Path(profile)) as browser:
        version = browser.call("Browser.getVersion")["product"]
        decode = "worldView.decoder.decode([...worldView.latents.z, ...worldView.latents.condition])"
        print(f"{version}, decoder alone: {browser.value(REPEATED % (decode, args.seconds)):.0f} frames/s")
        if browser.value("worldView.dream !== undefined"):
            step = "worldView.dream.step(performance.now())"
            print(f"{version}, dream, one step after the other: {browser.value(REPEATED % (step, args.seconds)):.0f} frames/s")
            print(f"{version}, dream as it is played: {browser.value(PLAYED % args.seconds):.0f} frames/s")


if __name__ == "__main__":
    main()
