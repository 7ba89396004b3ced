// zod probes `new Function`, which a strict Content-Security-Policy reports. Import this before the Hub.
import { z } from "zod";

z.config({ jitless: true });
