// Works for a tenth of a second, rests for three.
let sink = 0;

function leafOfNode() {
  for (let i = 0; i < 20000; i++) sink = (sink + i * i) % 1000003;
}

function topOfNode() {
  leafOfNode();
}

setInterval(() => {
  const start = Date.now();
  while (Date.now() - start < 100) topOfNode();
}, 400);
