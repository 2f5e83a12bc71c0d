// The live page of a gateway, built on @runcast/client as any page of yours could be.

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app.js";
import { Session } from "./session.js";

const root = document.getElementById("app");
if (!root) throw new Error("The document has no place for the page.");
createRoot(root).render(
  <StrictMode>
    <App session={new Session(sessionStorage)} />
  </StrictMode>,
);
