// @durable-streams/server, in memory or with its files in the folder that is given.
import { DurableStreamTestServer } from "@durable-streams/server";

const [dataDir] = process.argv.slice(2);
const server = new DurableStreamTestServer({
  port: 0,
  host: "127.0.0.1",
  compression: false,
  ...(dataDir ? { dataDir } : {}),
});
console.log(await server.start());
