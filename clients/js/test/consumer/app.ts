// Compiled against the build, as an application is: what it declares reaches every entry point.

import { createClient, type Run } from "@runcast/client";
import { useRun, useTriggerTask } from "@runcast/client/react";

declare module "@runcast/client" {
  interface Register {
    tasks: { summarize: { payload: { url: string }; output: string } };
  }
}

export const client = createClient({ baseURL: "http://gateway", token: "t" });

export function output(run: Run<"summarize">): string | undefined {
  return run.output;
}

export function useSummary(id: string): string | undefined {
  const { trigger } = useTriggerTask("summarize");
  void trigger({ url: "x" });
  // @ts-expect-error the payload has a url
  void trigger({ uri: "x" });
  return useRun<"summarize">(id).run?.output;
}
