// Worker threads of V8: each has a heap and a collector of its own; all share one buffer, by Atomics.
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const crypto = require('node:crypto');

const WORKERS = 4;
const ROUNDS = 400;

function work({ number, shared }) {
  const counters = new Int32Array(shared);
  const hash = crypto.createHash('sha256');
  let kept = [];
  for (let round = 0; round < ROUNDS; round++) {
    const entries = Array.from({ length: 64 }, (_, index) => ({ key: `k${number}-${round}-${index}`, value: index * round }));
    hash.update(JSON.stringify(entries));
    if (round % 16 === 0) kept = entries;
    Atomics.add(counters, 0, entries.length);
  }
  Atomics.add(counters, 1, 1);
  Atomics.notify(counters, 1);
  parentPort.postMessage({ number, digest: hash.digest('hex'), kept: kept.length });
}

if (isMainThread) {
  const shared = new SharedArrayBuffer(8);
  const results = new Array(WORKERS);
  let exited = 0;
  for (let number = 0; number < WORKERS; number++) {
    const worker = new Worker(__filename, { workerData: { number, shared } });
    worker.on('message', (message) => { results[message.number] = message; });
    worker.on('exit', (code) => {
      if (code !== 0) throw new Error(`worker ${number} ended with ${code}`);
      if (++exited < WORKERS) return;
      for (const { number, digest, kept } of results) console.log(number, digest, kept);
      console.log('counted', ...new Int32Array(shared));
    });
  }
} else {
  work(workerData);
}
