// Keeps V8 busy: compiled JavaScript, the garbage collector, JSON, regular expressions, sort with a callback.
'use strict';

function fibonacci(n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

function record(seed) {
  const values = [];
  for (let i = 0; i < 500; i++) values.push((seed * 31 + i) % 997);
  return { values, name: 'n' + seed, inner: { deep: new Array(20).fill(seed) } };
}

function work(seed) {
  fibonacci(20);
  record(seed).values.sort((a, b) => (a % 10) - (b % 10) || a - b);
  const text = JSON.stringify(record(seed));
  JSON.parse(text);
  text.match(/(\d+),(\d+)/g);
}

for (let seed = 0; ; seed++) work(seed);
