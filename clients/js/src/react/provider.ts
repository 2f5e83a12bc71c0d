// The client that hooks use.

import { createContext, createElement, useContext, type ReactElement, type ReactNode } from "react";
import type { Client } from "../index.js";

const ClientContext = createContext<Client | undefined>(undefined);

/** Give a client to the hooks below: make it once, outside of components or in a state. */
export function RuncastProvider(props: { client: Client; children?: ReactNode }): ReactElement {
  return createElement(ClientContext.Provider, { value: props.client }, props.children);
}

/**
 * The client of the nearest provider.
 *
 * @throws Error if there is none.
 */
export function useClient(): Client {
  const client = useContext(ClientContext);
  if (!client)
    throw new Error("Put a <RuncastProvider client={…}> around what uses runcast's hooks.");
  return client;
}
