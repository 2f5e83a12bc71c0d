// What the compiler knows once an application has declared its tasks.

import { describe, expectTypeOf, test } from "vitest";
import { createClient, type Run, type TaskId } from "../src/index.js";
import {
  useRun,
  useRuns,
  useRunStream,
  useRunWithStreams,
  useTriggeredRun,
  useTriggerTask,
} from "../src/react/index.js";

declare module "../src/types.js" {
  interface Register {
    tasks: {
      summarize: {
        payload: { url: string };
        output: { summary: string };
        metadata: { progress: number };
        streams: { llm: string; steps: { name: string } };
      };
      resize: { payload: { width: number }; output: null };
      hello: { payload: unknown };
    };
  }
}

const client = createClient({ baseURL: "http://gateway", token: "t" });

test("tasks are those that are declared", () => {
  expectTypeOf<TaskId>().toEqualTypeOf<"summarize" | "resize" | "hello">();
});

describe("a run", () => {
  test("has the types of its task", () => {
    const { run } = useRun<"summarize">("run_1");
    expectTypeOf(run?.payload).toEqualTypeOf<{ url: string } | null | undefined>();
    expectTypeOf(run?.output).toEqualTypeOf<{ summary: string } | undefined>();
    expectTypeOf(run?.metadata).toEqualTypeOf<{ progress: number } | undefined>();
    expectTypeOf(client.run<"summarize">("run_1").getSnapshot().run).toEqualTypeOf(run);
  });

  test("of any task is told apart by its task", () => {
    const check = (run: Run) => {
      if (run.taskIdentifier === "resize") {
        expectTypeOf(run.payload).toEqualTypeOf<{ width: number } | null | undefined>();
      }
    };
    expectTypeOf(check).toBeFunction();
  });

  test("of a task that declares nothing is unknown", () => {
    expectTypeOf<Run<"hello">["payload"]>().toEqualTypeOf<unknown>();
  });
});

test("runs of a task are inferred from what is asked for", () => {
  const { runs } = useRuns({ task: "resize" });
  expectTypeOf(runs[0]?.payload).toEqualTypeOf<{ width: number } | null | undefined>();
  expectTypeOf(client.runs({ task: "resize" }).getSnapshot().runs).toEqualTypeOf(runs);
  // @ts-expect-error there is no such task
  useRuns({ task: "resice" });
});

test("parts of a stream are those of its key", () => {
  expectTypeOf(useRunStream<"summarize", "steps">("run_1", "steps").parts).toEqualTypeOf<
    readonly { name: string }[]
  >();
  expectTypeOf(useRunStream<{ a: 1 }>("run_1", "any").parts).toEqualTypeOf<readonly { a: 1 }[]>();
  expectTypeOf(useRunStream("run_1", "any").parts).toEqualTypeOf<readonly unknown[]>();
  const { streams } = useRunWithStreams<"summarize">("run_1");
  expectTypeOf(streams.llm?.parts).toEqualTypeOf<readonly string[] | undefined>();
  // @ts-expect-error summarize has no such stream
  useRunStream<"summarize", "stepz">("run_1", "stepz");
});

test("payloads are checked, and outputs known", () => {
  const { trigger } = useTriggerTask("summarize");
  expectTypeOf(trigger).parameter(0).toEqualTypeOf<{ url: string }>();
  const { followed } = useTriggeredRun("summarize");
  expectTypeOf(followed.run?.output).toEqualTypeOf<{ summary: string } | undefined>();
  // @ts-expect-error the payload has a url
  const send = () => client.trigger("summarize", { uri: "x" });
  expectTypeOf(send).toBeFunction();
});

test("iterating gives what is followed", () => {
  const iterate = async () => {
    for await (const run of client.run<"summarize">("run_1")) {
      expectTypeOf(run.payload).toEqualTypeOf<{ url: string } | null | undefined>();
    }
    for await (const part of client.stream<"summarize", "llm">("run_1", "llm")) {
      expectTypeOf(part).toEqualTypeOf<string>();
    }
  };
  expectTypeOf(iterate).toBeFunction();
});
