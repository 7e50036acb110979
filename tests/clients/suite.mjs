// Runs the checks of one client and tells how each ended, a line each: suite.py in this language.

import { readFileSync } from "node:fs";

export const fleet = JSON.parse(readFileSync(process.argv[2]));
export const scenes = fleet.scenes;

export async function run(client, version, checks) {
  let failed = 0;
  for (const check of checks) {
    const begin = Date.now();
    try {
      await check();
      console.log(`ok      ${check.name} (${((Date.now() - begin) / 1000).toFixed(1)} s)`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED  ${check.name}: ${error?.constructor?.name}: ${error?.message}`);
      console.log(error?.stack);
    }
  }
  console.log(`${client} ${version}: ${checks.length - failed} of ${checks.length} pass`);
  process.exit(failed ? 1 : 0);
}

// The first request of a minute may pass, and another suite may have made it.
export const twice = (ask) => async () => {
  await ask();
  return ask();
};

// The exception of exactly this class.
export async function raises(kind, ask) {
  let answer;
  try {
    answer = await ask();
  } catch (error) {
    if (error?.constructor === kind) return error;
    throw new Error(`${kind.name} was expected, got ${error?.stack}`);
  }
  throw new Error(`${kind.name} was expected, got ${JSON.stringify(answer)}`);
}

// Lists are as old as the gateway's last poll: after a death only an answer tells.
export async function untilItAnswers(model) {
  const messages = [{ role: "user", content: "Greet me." }];
  const body = JSON.stringify({ model, messages, max_tokens: 1 });
  const headers = { "content-type": "application/json" };
  const url = `${fleet.url}/v1/chat/completions`;
  const end = Date.now() + 60_000;
  while (!(await fetch(url, { method: "POST", headers, body })).ok) {
    if (Date.now() > end) throw new Error(`${model} never answers`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

export function killDoomed() {
  process.kill(Number(readFileSync(fleet.doomed_pid_file, "utf8")), "SIGKILL");
}
