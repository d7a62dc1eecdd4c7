import type { FastifyInstance } from "fastify";
import { z } from "zod";
import type { Cloud } from "../cloud.ts";
import { schemaOf } from "../field.ts";
import { originOf, parse } from "../request.ts";
import { refusal, success } from "./envelope.ts";
import { breaches, priceOf, SOLD_MODELS, type SoldModel, withoutEmpty } from "./models.ts";

const BALANCE_USD = 1_000; // before the first run

const pricing = z.object({ model_id: z.string(), inputs: z.record(z.string(), z.unknown()).default({}) });

/** What an account can know: its balance, its webhooks' secret, what is sold and for how much. */
export function accountRoutes({ bill, faults, options }: Cloud) {
  return async (api: FastifyInstance) => {
    api.get("/balance", async () => success({ balance: Math.max(0, BALANCE_USD - bill.sheet().total.usd) }));

    api.get("/webhook/secret", async () => success({ secret: options.webhookSecret }));

    api.get("/models", async (request) => {
      const isThere = ({ id }: SoldModel) =>
        !faults.stands("vanished", { face: "wavespeed", model: id, text: "", own: [] });
      const there = [...SOLD_MODELS.values()].filter(isThere);
      return success(there.map((model) => entry(model, originOf(request))));
    });

    // The second is the older name.
    for (const path of ["/model/price", "/model/pricing"]) {
      api.post(path, async (request) => {
        const { model_id, inputs } = parse(pricing, request.body);
        const model = SOLD_MODELS.get(model_id);
        if (!model) throw refusal(404, "model not found");
        const input = withoutEmpty(inputs);
        const [wrong] = breaches(model, input).filter(({ type }) => type !== "required");
        if (wrong) throw refusal(400, `invalid parameter: ${wrong.field}: ${wrong.description}`);
        const price = priceOf(model, input);
        return success({ model_id, price, discounted_price: price, unit_price: price, currency: "USD" });
      });
    }
  };
}

function entry(model: SoldModel, server: string) {
  const { id, type, description, fields } = model;
  const run = {
    type: "model_run",
    method: "POST",
    server,
    api_path: `/api/v3/${id}`,
    request_schema: schemaOf("Input", fields)["Input"],
  };
  return {
    model_id: id,
    name: id,
    base_price: priceOf(model, {}),
    description,
    type,
    api_schema: { api_schemas: [run] },
  };
}
