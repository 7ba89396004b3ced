/**
 * Notices that StackOne refused a call of the Hub. The Hub swallows every 401 and 403, and nothing else tells.
 *
 * Resource timing carries the status of cross-origin answers too, without touching `fetch` or the Hub. Where a browser
 * lacks `responseStatus`, a dead token is noticed at its known end only. Answers to calls from before `since` (a
 * reading of `performance.now()`) are those of an earlier token.
 */
export function watchHubRefusals(hubBaseUrl: string, since: number, onRefused: () => void): () => void {
  if (typeof PerformanceObserver === "undefined" || !PerformanceObserver.supportedEntryTypes?.includes("resource")) {
    return () => {};
  }
  const prefix = `${new URL(hubBaseUrl, location.href).href.replace(/\/$/, "")}/hub/`;
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries() as PerformanceResourceTiming[]) {
      const isRefusal = entry.responseStatus === 401 || entry.responseStatus === 403;
      if (isRefusal && entry.startTime >= since && entry.name.startsWith(prefix)) onRefused();
    }
  });
  observer.observe({ type: "resource" });
  return () => observer.disconnect();
}
