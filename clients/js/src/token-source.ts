// The application's token: a text, or a function that is asked for one when it is needed.

import { TOKEN_MS } from "./constants.js";
import { messageOf, RuncastError } from "./errors.js";

export type Token = string | (() => string | Promise<string>);

export class TokenSource {
  readonly #source: Token;
  #known: string | undefined;
  #asking: Promise<string> | undefined;
  #giveUp: ((why: Error) => void) | undefined;

  constructor(source: Token) {
    this.#source = source;
  }

  /** Whether asking again can give another one. */
  get renewable(): boolean {
    return typeof this.#source === "function";
  }

  /** Whether `get` gives what it has, without asking. */
  get isKnown(): boolean {
    return this.#known !== undefined;
  }

  /**
   * The token to use now: the one that was given last, unless it was spent. All who ask while the
   * function is at work get the same answer.
   *
   * @throws RuncastError `token_unavailable` if the function fails, or takes too long.
   */
  get(): Promise<string> {
    if (typeof this.#source === "string") return Promise.resolve(this.#source);
    if (this.#known !== undefined) return Promise.resolve(this.#known);
    this.#asking ??= this.#ask(this.#source)
      .then((token) => (this.#known = token))
      .finally(() => {
        this.#asking = undefined;
      });
    return this.#asking;
  }

  /** This token is not good any more. */
  spend(token: string): void {
    if (this.#known === token) this.#known = undefined;
  }

  /** Wait for the function no longer, if it is at work. */
  giveUp(): void {
    this.#giveUp?.(new Error("the client was closed"));
  }

  async #ask(source: () => string | Promise<string>): Promise<string> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      this.#giveUp = reject;
      timer = setTimeout(() => {
        reject(new Error(`it took longer than ${String(TOKEN_MS / 1000)} seconds`));
      }, TOKEN_MS);
    });
    try {
      const token: unknown = await Promise.race([source(), late]);
      if (typeof token !== "string" || token === "") throw new Error("it gave no text");
      return token;
    } catch (error) {
      if (error instanceof RuncastError) throw error; // of another one of these
      const why = messageOf(error);
      throw new RuncastError("token_unavailable", `The token function failed: ${why}.`);
    } finally {
      clearTimeout(timer);
    }
  }
}
