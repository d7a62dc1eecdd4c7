export const USER = "ann";

/** A job that the demo submits, and how it should end. */
export interface Order {
  readonly name: "generation" | "staging" | "refused";
  readonly about: string;
  readonly body: { readonly kind: string; readonly user: string; readonly input: Readonly<Record<string, unknown>> };
  readonly ends: "completed" | "failed";
  /** Pictures, when it completes. */
  readonly pictures: number;
}

/** The third is for the sandbox only: a real provider cannot be asked to fail. */
export function makeOrders(prompt: string, uploadId: string, sandbox: boolean): Order[] {
  const orders: Order[] = [
    {
      name: "generation",
      about: "two landscape pictures from words",
      body: { kind: "generation", user: USER, input: { prompt, size: "landscape", images: 2 } },
      ends: "completed",
      pictures: 2,
    },
    {
      name: "staging",
      about: "two furnished pictures of the empty room",
      body: {
        kind: "staging",
        user: USER,
        input: { image: uploadId, room: "living_room", style: "scandinavian" },
      },
      ends: "completed",
      pictures: 2,
    },
  ];
  if (!sandbox) return orders;
  const refused: Order = {
    name: "refused",
    about: "made to fail by the safety filter; the credits come back",
    body: { kind: "generation", user: USER, input: { prompt: "a portrait [sandbox: nsfw]", images: 2 } },
    ends: "failed",
    pictures: 0,
  };
  return [...orders, refused];
}
