// Node.js as its documentation has it: a response per client, `write` to each.
const http = require("node:http");

const clients = new Set();
let sent = 0;

const server = http.createServer((request, response) => {
  if (request.method === "GET") {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    response.flushHeaders();
    clients.add(response);
    request.on("close", () => clients.delete(response));
    return;
  }
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    response.writeHead(204).end();
    const event = Buffer.from(`id: ${++sent}\nevent: run\ndata: ${Buffer.concat(parts)}\n\n`);
    for (const client of clients) client.write(event);
  });
});
server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () =>
  console.log(`listening ${server.address().port}`),
);
