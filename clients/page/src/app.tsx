// From the address and the token to a client, and to what is shown with it.

import { createClient } from "@runcast/client";
import { RuncastProvider } from "@runcast/client/react";
import { useEffect, useState, useSyncExternalStore, type ReactElement } from "react";
import { Board } from "./board.js";
import { FrameLog } from "./frames.js";
import { Header } from "./header.js";
import { Help } from "./help.js";
import type { Session } from "./session.js";
import { TokenForm, type Reason } from "./token-form.js";
import { claimsOf, startingPoint } from "./token.js";
import { fragmentOf, NOTHING, readFragment, show, type View } from "./view.js";

export function App({ session }: { session: Session }): ReactElement {
  const { token, isFreshWanted, round } = useSyncExternalStore(
    session.subscribe,
    session.getSnapshot,
  );
  const [asked, setAsked] = useState(() => takeAddress(session));
  const [isFormOpen, setFormOpen] = useState(false);
  useEffect(() => {
    const read = () => {
      setAsked(takeAddress(session));
    };
    addEventListener("hashchange", read);
    return () => {
      removeEventListener("hashchange", read);
    };
  }, [session]);

  const give = (given: string) => {
    // Another environment knows nothing of what was asked for.
    if (token && claimsOf(given).sub !== claimsOf(token).sub) show(NOTHING);
    session.give(given);
    setFormOpen(false);
  };
  const toggleForm = () => {
    setFormOpen((open) => !open);
  };
  const form = (reason: Reason) => <TokenForm reason={reason} onToken={give} />;

  return (
    <>
      <a
        className="skip"
        href="#content"
        onClick={(event) => {
          event.preventDefault(); // the fragment is taken
          document.getElementById("content")?.focus();
        }}
      >
        Skip to the runs
      </a>
      {token ? (
        <WithClient key={round} session={session}>
          {(frames) => (
            <Board
              view={viewWith(token, asked)}
              token={token}
              isFreshWanted={isFreshWanted}
              frames={frames}
              isFormOpen={isFormOpen}
              onToggleForm={toggleForm}
              form={form}
            />
          )}
        </WithClient>
      ) : (
        <>
          <Header state="idle" words="No token" />
          <div className="no-token">{form("none")}</div>
        </>
      )}
      <Help />
    </>
  );
}

/** Read the address; a token in it is taken out at once. */
function takeAddress(session: Session): View {
  const { view, token } = readFragment(location.hash);
  if (token !== undefined) {
    history.replaceState(null, "", fragmentOf(view));
    session.give(token);
  }
  return view;
}

/** Where the address asks for nothing, a token that opens little says what to show. */
function viewWith(token: string, asked: View): View {
  const start = startingPoint(token);
  const isFiltered = asked.tags || asked.task || asked.batch;
  return start.everything || isFiltered || asked.run ? asked : { ...asked, ...start.view };
}

function WithClient({
  session,
  children,
}: {
  session: Session;
  children: (frames: FrameLog) => ReactElement;
}): ReactElement {
  const [{ client, frames }] = useState(() => {
    const log = new FrameLog();
    // Each tab has a token of its own, so it has a connection of its own too.
    return {
      client: createClient({
        token: session.ask,
        shareTabs: false,
        onFrame: log.add,
      }),
      frames: log,
    };
  });
  useEffect(
    () => () => {
      client.close();
    },
    [client],
  );
  return <RuncastProvider client={client}>{children(frames)}</RuncastProvider>;
}
