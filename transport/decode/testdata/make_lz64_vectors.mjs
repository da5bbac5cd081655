// Makes lz64.json with the original lz-string. In a directory of your own:
//
//   npm install lz-string@1.5.0
//   cp <this file> . && node make_lz64_vectors.mjs > <this directory>/lz64.json
//
// Each vector has its text as JSON text (all escapes are ASCII, so lone surrogates survive) and the base64 form of
// lz-string. A text that is too long for such a file is given as a unit and a count, or by the hash of its UTF-8.
import { createHash } from "node:crypto";
import LZString from "lz-string";

let state = 42;
const random = (n) => {
  state = (state * 1103515245 + 12345) % 2147483648;
  return state % n;
};
const word = () => Array.from({ length: 3 + random(8) }, () => String.fromCharCode(97 + random(26))).join("");
const event = (i) => ({
  event: ["$pageview", "$autocapture", word()][i % 3],
  properties: { distinct_id: word() + i, $current_url: `https://example.com/${word()}?q=${word()}`, n: random(1e6), text: "größer 日本 " + word() + " 😀" },
});
const every = (from, to) => Array.from({ length: to - from }, (_, i) => String.fromCharCode(from + i)).join("");

const texts = {
  empty: "",
  "one 8-bit character": "a",
  "one NUL": "\0",
  "one 8-bit character beyond ASCII": "ÿ",
  "one 16-bit character": "語",
  "two equal characters": "aa",
  "three equal characters": "aaa",
  "one emoji": "😀",
  "emoji and their halves in common": "😀😁😂😀😁😂😀😀😀🧑‍🚀",
  "every 8-bit character": every(0, 256),
  "every 8-bit character twice": every(0, 256) + every(0, 256),
  "16-bit characters": every(0x3040, 0x3240),
  "around the surrogates": "\ud7ff\ue000\uffff\ufeff",
  "a JSON object": '{"event":"x","properties":{"token":"phc_test","distinct_id":"u"}}',
  "a JSON array": "[" + [0, 1, 2].map((i) => JSON.stringify(event(i))).join() + "]",
  "a lone high surrogate": '{"a":"\ud83d"}',
  "a lone low surrogate": '{"a":"\ude00"}',
  "surrogates in the wrong order": '{"a":"\ude00\ud83d"}',
  "a lone one before a pair": "\ud83d\ud83d\ude00",
};
const ascii = (text) => JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
const vectors = Object.entries(texts).map(([name, text]) => `{"name":${ascii(name)},"unit":${ascii(text)},"count":1,"lz64":"${LZString.compressToBase64(text)}"}`);
const repeated = { "a long repeat of one character": ["a", 1000000], "a long repeat of an emoji": ["😀", 100000], "a long repeat of a text": ['{"k":"värde"},', 20000] };
for (const [name, [unit, count]] of Object.entries(repeated))
  vectors.push(`{"name":${ascii(name)},"unit":${ascii(unit)},"count":${count},"lz64":"${LZString.compressToBase64(unit.repeat(count))}"}`);
const large = [];
for (let i = 0, size = 0; size < 100000; i++) size += large[large.push(JSON.stringify(event(i))) - 1].length + 1;
const text = "[" + large.join() + "]";
const sha256 = createHash("sha256").update(text).digest("hex");
vectors.push(`{"name":"100 KB of JSON","sha256":"${sha256}","lz64":"${LZString.compressToBase64(text)}"}`);
console.log("[\n" + vectors.join(",\n") + "\n]");
