/** The vendor's component, in a chunk of its own: it weighs 700 KB and is needed only when somebody connects. */

import "./jitless";

export { StackOneHub as default } from "@stackone/hub";
