import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

/** What a process counts. Names and units follow Prometheus' conventions; labels have few values each. */
export interface Metrics {
  readonly registry: Registry;
  readonly accepted: Counter<"kind" | "outcome">;
  readonly acceptGroup: Histogram;
  readonly creditsCharged: Counter<"kind">;
  readonly ended: Counter<"kind" | "status" | "failure">;
  readonly endToEnd: Histogram<"kind">;
  readonly submissions: Counter<"provider" | "outcome">;
  readonly looks: Counter<"provider" | "status">;
  readonly orphans: Counter<"provider">;
  readonly webhooks: Counter<"provider" | "result">;
  readonly callbacks: Counter<"outcome">;
  readonly pipelines: Counter<"status">;
  readonly swept: Counter;
  readonly leases: Gauge;
  readonly http: Histogram<"method" | "route" | "status">;
  readonly auditFindings: Gauge<"check">;
  readonly auditCompleted: Gauge;
  readonly auditRounds: Counter<"outcome">;
  readonly modelsGone: Gauge<"provider">;
  readonly modelChecks: Counter<"provider" | "outcome">;
  readonly rateLimited: Counter<"app" | "limit">;
  readonly providerPaused: Gauge<"provider" | "reason">;
  readonly providerBreaker: Gauge<"provider" | "state">;
  readonly providerLoad: Gauge<"provider" | "model" | "what">;
  readonly providerCalls: Counter<"provider" | "verb" | "outcome">;
  readonly providerSeconds: Histogram<"provider" | "verb">;
  readonly providerLogDropped: Counter<"provider">;
  readonly providerCost: Counter<"provider">;
  readonly providerBalance: Gauge<"provider">;
  readonly providerCostToday: Gauge<"provider">;
  readonly providerReachable: Gauge<"provider">;
}

/** What only workers know: an API that showed it would say "never audited" for ever. */
export const WORKERS_ONLY = [
  "audit_findings",
  "audit_completed_timestamp_seconds",
  "audit_rounds_total",
  "catalogue_models_gone",
  "catalogue_checks_total",
  "provider_paused",
  "provider_breaker",
  "provider_load",
  "provider_balance_dollars",
  "provider_cost_today_dollars",
  "provider_reachable",
] as const;

export function makeMetrics(): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  return {
    registry,
    accepted: new Counter({
      name: "jobs_accepted_total",
      help: "Answers to submitted jobs.",
      labelNames: ["kind", "outcome"],
      registers,
    }),
    acceptGroup: new Histogram({
      name: "accept_group_size",
      help: "Requests that one statement accepted together.",
      buckets: [1, 2, 4, 8, 16, 32, 64],
      registers,
    }),
    creditsCharged: new Counter({
      name: "credits_charged_total",
      help: "Credits charged at acceptance.",
      labelNames: ["kind"],
      registers,
    }),
    ended: new Counter({
      name: "jobs_ended_total",
      help: "Jobs that reached their end.",
      labelNames: ["kind", "status", "failure"],
      registers,
    }),
    endToEnd: new Histogram({
      name: "job_end_to_end_seconds",
      help: "From acceptance to the end.",
      labelNames: ["kind"],
      buckets: [1, 2, 5, 10, 20, 40, 60, 120, 300, 900, 3600],
      registers,
    }),
    submissions: new Counter({
      name: "provider_submissions_total",
      help: "Orders sent to providers, by what came of them.",
      labelNames: ["provider", "outcome"],
      registers,
    }),
    looks: new Counter({
      name: "provider_looks_total",
      help: "Times a provider was asked about a run.",
      labelNames: ["provider", "status"],
      registers,
    }),
    orphans: new Counter({
      name: "provider_orphans_total",
      help: "Runs that turned up after they were presumed lost and replaced: canceled, and paid by us.",
      labelNames: ["provider"],
      registers,
    }),
    webhooks: new Counter({
      name: "webhooks_received_total",
      help: "Webhooks of providers.",
      labelNames: ["provider", "result"],
      registers,
    }),
    callbacks: new Counter({
      name: "callbacks_total",
      help: "Attempts to tell a backend what has ended: delivered, retried later, or given up.",
      labelNames: ["outcome"],
      registers,
    }),
    pipelines: new Counter({
      name: "pipelines_ended_total",
      help: "Pipelines that reached an end; a resumed one may reach several.",
      labelNames: ["status"],
      registers,
    }),
    swept: new Counter({ name: "jobs_swept_total", help: "Jobs that the sweep had to wake.", registers }),
    leases: new Gauge({ name: "job_leases", help: "Jobs that this process works on right now.", registers }),
    http: new Histogram({
      name: "http_request_duration_seconds",
      help: "Requests by route.",
      labelNames: ["method", "route", "status"],
      buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30],
      registers,
    }),
    auditFindings: new Gauge({
      name: "audit_findings",
      help: "What does not add up, by check, as the fleet's last round found it. Zero, always.",
      labelNames: ["check"],
      registers,
    }),
    auditCompleted: new Gauge({
      name: "audit_completed_timestamp_seconds",
      help: "When the fleet's last audit that left nothing waiting was over. 0: never yet.",
      registers,
    }),
    auditRounds: new Counter({
      name: "audit_rounds_total",
      help: "Rounds of the audit that this process made.",
      labelNames: ["outcome"],
      registers,
    }),
    modelsGone: new Gauge({
      name: "catalogue_models_gone",
      help: "Models of the catalogue that the provider no longer has. Zero, or an entry is to be mended.",
      labelNames: ["provider"],
      registers,
    }),
    modelChecks: new Counter({
      name: "catalogue_checks_total",
      help: "Models that this process asked a provider for, by what was found.",
      labelNames: ["provider", "outcome"],
      registers,
    }),
    rateLimited: new Counter({
      name: "rate_limited_total",
      help: "Submissions that a rate limit refused.",
      labelNames: ["app", "limit"],
      registers,
    }),
    providerPaused: new Gauge({
      name: "provider_paused",
      help: "1 while an account takes nothing from us: no credit, or a token that it refuses.",
      labelNames: ["provider", "reason"],
      registers,
    }),
    providerBreaker: new Gauge({
      name: "provider_breaker",
      help: "1 for the state that the breaker of an account is in: closed, half_open or open.",
      labelNames: ["provider", "state"],
      registers,
    }),
    providerLoad: new Gauge({
      name: "provider_load",
      help: "What a provider tells of a model: orders queued and running, workers by what they do.",
      labelNames: ["provider", "model", "what"],
      registers,
    }),
    providerCalls: new Counter({
      name: "provider_calls_total",
      help: "Calls to providers over the wire, by what they were for and how they ended: ok, or the trouble.",
      labelNames: ["provider", "verb", "outcome"],
      registers,
    }),
    providerSeconds: new Histogram({
      name: "provider_call_seconds",
      help: "How long calls to providers took; where the call is the whole run, that.",
      labelNames: ["provider", "verb"],
      buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300],
      registers,
    }),
    providerLogDropped: new Counter({
      name: "provider_log_dropped_total",
      help: "Calls that were counted, but are not in the log of the last calls: too many at once, or no database.",
      labelNames: ["provider"],
      registers,
    }),
    providerCost: new Counter({
      name: "provider_cost_dollars_total",
      help: "What runs cost us, as they ended.",
      labelNames: ["provider"],
      registers,
    }),
    providerBalance: new Gauge({
      name: "provider_balance_dollars",
      help: "What is left on an account, where the provider tells; a few minutes old.",
      labelNames: ["provider"],
      registers,
    }),
    providerCostToday: new Gauge({
      name: "provider_cost_today_dollars",
      help: "What the runs that were sent since midnight (UTC) have cost so far, of the whole fleet.",
      labelNames: ["provider"],
      registers,
    }),
    providerReachable: new Gauge({
      name: "provider_reachable",
      help: "1 when an account has answered the fleet lately, 0 when not; absent when nobody has asked for ten minutes.",
      labelNames: ["provider"],
      registers,
    }),
  };
}
