import { expect, it, vi } from "vitest";
import { load } from "../src/load.js";

it("asks again at once where the browser names no address: Safari, which remembers no failure", async () => {
  const ask = vi.fn().mockRejectedValueOnce(new TypeError("Importing a module script failed.")).mockResolvedValue({ found: 1 });
  expect(await load(ask)).toEqual({ found: 1 });
  expect(ask).toHaveBeenCalledTimes(2);
});

it("is tried again by whoever asks later", async () => {
  const ask = vi.fn().mockRejectedValue(new TypeError("Importing a module script failed."));
  await expect(load(ask)).rejects.toThrow(TypeError);
  ask.mockResolvedValue({ found: 1 });
  expect(await load(ask)).toEqual({ found: 1 });
});
