import { roman } from "roman";

declare const ENV: string;

interface Hour {
  readonly of: number;
  readonly shown: string;
}

const face: Hour[] = Array.from({ length: 12 }, (_, at) => ({ of: at + 1, shown: roman(at + 1) }));

console.log(`${ENV} ${face.map((hour) => hour.shown).join(" ")}`);
