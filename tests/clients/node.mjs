// The official client in Node: orders come in lines, answers and events go out in lines.

import { createInterface } from "node:readline";
import { Centrifuge } from "centrifuge";
import { Centrifuge as Binary } from "centrifuge/build/protobuf";
import { EventSource } from "eventsource";
import WebSocket from "ws";
import { driving } from "./driving.mjs";

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const means = { websocket: WebSocket, fetch, readableStream: ReadableStream, eventsource: EventSource };
const json = driving(Centrifuge, means, say);
const binary = driving(Binary, means, say);

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  (order.binary ? binary : json)(order).then(say);
}
process.exit(0);
