import type { Logger } from "pino";
import type { Db } from "../db/client.ts";
import type { KindName } from "../domain/kinds/kind.ts";
import type { Providers, Routing } from "../domain/routing.ts";
import type { Reach } from "../fault-points.ts";
import type { Metrics } from "../metrics.ts";
import type { Queues } from "../queue/queue.ts";
import type { FetchFile, FetchToFile } from "../storage/guarded-fetch.ts";
import type { GuardedPost } from "../storage/guarded-post.ts";
import type { Storage } from "../storage/storage.ts";
import type { Bulkheads } from "./bulkheads.ts";
import type { Known } from "./circumstances.ts";

/** What a worker acts with. */
export interface Services {
  readonly db: Db;
  readonly queues: Queues;
  readonly storage: Storage;
  readonly providers: Providers;
  /** Who is to serve a job: as its app and plan have it, or the deployment. */
  readonly routingFor: (job: {
    readonly appId: string;
    readonly plan: string | null;
    readonly kind: KindName;
    readonly model: string;
  }) => Routing;
  /** What the fleet knows of accounts and routes, at most a second old. */
  readonly circumstances: () => Promise<Known>;
  readonly bulkheads: Bulkheads;
  readonly fetchFile: FetchFile;
  readonly fetchToFile: FetchToFile;
  /** What the keys of an app's files begin with. */
  readonly prefixOf: (appId: string) => string;
  /** Where a provider may call the API; null when that address is not HTTPS, and then runs are only looked at. */
  readonly webhookUrl: ((provider: string, runId: string) => string) | null;
  /** A run that no list shows is presumed lost only after this. Three times the longest lag of the provider's list. */
  readonly lostAfterMs: number;
  readonly maxFileBytes: number;
  /** Aborted when the worker drains: what may take minutes is broken off, and done by another. */
  readonly stop: AbortSignal;
  /** To the backends of apps. */
  readonly post: GuardedPost;
  /** What an app's callbacks are signed with. */
  readonly callbackSecretOf: (appId: string) => string;
  readonly reach: Reach;
  readonly logger: Logger;
  readonly metrics: Metrics;
}
