import { createClient } from "../../../clients/js/dist/index.js";
import { playAll } from "./play.mjs";

export default {
  async test(_, { url, key }) {
    console.log(await playAll(createClient, { url, key }));
  },
};
