/**
 * What can befall a job after it was accepted. One table: the code is stable and may be programmed against,
 * `retryable` says whether buying the same thing again can help, `says` is what the end user may read,
 * `remedy` is what the operator of this deployment can do about it.
 */
export const FAILURES = {
  provider_auth: {
    retryable: false,
    says: "The image service could not be reached with our account.",
    remedy: "The provider refused our token (401). Set a valid token, then resubmit.",
  },
  provider_no_credit: {
    retryable: false,
    says: "The image service is temporarily out of capacity for us.",
    remedy: "The provider account is out of credit (402). Top it up at the provider's billing page.",
  },
  model_not_found: {
    retryable: false,
    says: "This model is not available at the moment.",
    remedy: "The provider does not know this model or version (404). Check the catalogue entry's route.",
  },
  input_too_large: {
    retryable: false,
    says: "The input is too large for the model.",
    remedy:
      "The provider refused the size of the input (413), or uploads of that size. Send a smaller file; where the detail says so, use a store that the provider can reach.",
  },
  input_unreachable: {
    retryable: false,
    says: "The image service cannot be given this file.",
    remedy:
      "The provider takes no uploads and cannot read the file where it lies. Use a store that it can reach (STORAGE_PROVIDER=s3).",
  },
  input_missing: {
    retryable: false,
    says: "A file of this request is no longer there. Send it again with a new request.",
    remedy:
      "An input, or the weights of a trained model, was deleted before it was ordered. Check what removes files from the store. Nothing was bought.",
  },
  input_refused: {
    retryable: false,
    says: "The model did not accept these parameters.",
    remedy: "The provider refused the input (422). The detail names the field; check the model's input mapping.",
  },
  content_refused: {
    retryable: false,
    says: "The result was held back by the safety filter. Change the prompt or the image and try again.",
    remedy: "Nothing to do: the safety checker of the model held the output back.",
  },
  rate_limited: {
    retryable: true,
    says: "The image service is busy; we are waiting for our turn.",
    remedy: "The provider throttled us (429). It is asked again later; this does not count as an attempt.",
  },
  provider_busy: {
    retryable: true,
    says: "The image service is busy; we keep trying.",
    remedy:
      "The provider answered that it cannot take the order yet: the model is being loaded, or all of its machines are taken. It is asked again later; nothing was ordered.",
  },
  provider_unavailable: {
    retryable: true,
    says: "The image service cannot be reached; we keep trying.",
    remedy:
      "The provider could not be reached or gave no usable answer before anything was ordered. It is asked again later.",
  },
  interrupted: {
    retryable: true,
    says: "The image service interrupted the work.",
    remedy: "The provider interrupted the run and says to try again. It is bought anew, up to the job's limit.",
  },
  aborted: {
    retryable: true,
    says: "The image service gave up before starting.",
    remedy: "The provider ended the run before it started; nothing was billed. It is bought anew, up to the limit.",
  },
  lost: {
    retryable: true,
    says: "The image service did not confirm the work.",
    remedy: "The answer to our submission was lost and the provider's list shows that it does not exist there.",
  },
  unconfirmed: {
    retryable: false,
    says: "The image service did not confirm the work. Its credits were returned.",
    remedy:
      "The answer to our submission was lost, and this provider has no list to look into: whether it was done, and billed, only its invoice tells. It is not bought again.",
  },
  provider_failed: {
    retryable: false,
    says: "The model failed to produce a result.",
    remedy: "The provider reports a failed run. The detail has its words.",
  },
  provider_canceled: {
    retryable: false,
    says: "The work was stopped at the image service.",
    remedy: "The run was canceled at the provider, by its deadline or by hand.",
  },
  timeout: {
    retryable: false,
    says: "The work took too long and was stopped.",
    remedy: "The run passed the model's time limit. Raise the limit in the catalogue if this is normal for the model.",
  },
  output_unavailable: {
    retryable: false,
    says: "The result could not be retrieved.",
    remedy:
      "The provider finished, but its output could not be downloaded or stored in time. Check the bucket's access.",
  },
  output_invalid: {
    retryable: false,
    says: "The result was not a usable file.",
    remedy: "The provider's output was not of the type that the kind delivers. The detail says what it was.",
  },
  set_aside: {
    retryable: false,
    says: "This request could not be worked on. Its credits were returned.",
    remedy:
      "Three workers in a row ended while they acted on this job. The timeline names them: look into their logs and memory, then resubmit.",
  },
  deadline_exceeded: {
    retryable: false,
    says: "The job waited too long and was given up.",
    remedy: "The job's deadline passed before every variant could be bought. Check workers and provider limits.",
  },
} as const satisfies Record<string, { retryable: boolean; says: string; remedy: string }>;

export type FailureCode = keyof typeof FAILURES;

/** `detail` is the evidence in the provider's or the system's own words, at most 2,000 characters; never shown to end users. */
export interface Failure {
  readonly code: FailureCode;
  readonly detail: string;
}

export function failure(code: FailureCode, detail: string): Failure {
  return { code, detail: storable(detail.slice(0, 2_000)) };
}

/** The same JSON with all its texts and names storable. */
export function allStorable<T extends object>(value: T): T {
  return JSON.parse(JSON.stringify(value), (_, member: unknown) => {
    if (typeof member === "string") return storable(member);
    if (typeof member !== "object" || member === null || Array.isArray(member)) return member;
    return Object.fromEntries(Object.entries(member).map(([name, each]) => [storable(name), each]));
  });
}

/** Postgres keeps neither U+0000 nor half of a surrogate pair, and providers have been seen to send both. */
export function storable(text: string): string {
  return text.replaceAll("\u0000", "").toWellFormed();
}
