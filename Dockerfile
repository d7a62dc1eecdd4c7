# syntax=docker/dockerfile:1
# One image for the API and the workers:
#   docker run darkroom            the API
#   docker run darkroom worker     a worker
#   docker run darkroom migrate    brings the database up to date
# tini is PID 1: it passes SIGTERM on and collects orphans, so --init is not needed.

# Debian, not Alpine: sharp's binaries are made for glibc.
FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
COPY apps ./apps
RUN npm run build && npm ci --omit=dev --no-audit --no-fund && npm cache clean --force

# The local cloud, for docker-compose.yml only: Node 24 runs its TypeScript as it is.
FROM build AS sandbox
COPY sandbox ./sandbox
USER node
EXPOSE 3100
CMD ["node", "sandbox/main.ts", "--host", "0.0.0.0", "--port", "3100"]

FROM node:24-bookworm-slim
RUN apt-get update \
  && apt-get install -y --no-install-recommends tini \
  && rm -rf /var/lib/apt/lists/*
# glibc gives memory back: otherwise it keeps what pictures once needed, an arena for each thread.
ENV MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=131072 MALLOC_TRIM_THRESHOLD_=131072
ENV NODE_ENV=production HOST=0.0.0.0 PORT=3000 HEALTH_PORT=3001 STORAGE_DIR=/data
WORKDIR /app
# They belong to root: the service cannot change its own code.
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY migrations ./migrations
# For those who keep files on local disk: mount a volume here.
RUN mkdir /data && chown node:node /data
USER node
EXPOSE 3000 3001
STOPSIGNAL SIGTERM
# The API answers on PORT, a worker on HEALTH_PORT: one of them must.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["node", "-e", "const live = async (port) => { const answer = await fetch(`http://127.0.0.1:${port}/livez`, { signal: AbortSignal.timeout(3000) }); if (!answer.ok) throw new Error(`${answer.status}`); }; Promise.any([live(process.env.PORT), live(process.env.HEALTH_PORT)]).then(() => process.exit(0), () => process.exit(1));"]
ENTRYPOINT ["tini", "--", "node", "dist/src/main.js"]
CMD ["api"]
