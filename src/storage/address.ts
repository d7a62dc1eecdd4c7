import ipaddr from "ipaddr.js";

/** Public as numbers go, yet inside: Azure's host, which hands out metadata and credentials to every machine there. */
const AZURE_HOST = "168.63.129.16/32";

/** All that IANA has given out for the public internet. Outside lie forms such as ::7f00:1, which mean 127.0.0.1. */
const GLOBAL_IPV6 = ipaddr.IPv6.parseCIDR("2000::/3");

/**
 * Tells whether an address is one on the public internet, and no other way to write an inner one: not private, loopback,
 * link-local, carrier-grade NAT, multicast or reserved, no IPv4 address wrapped by NAT64, 6to4 or Teredo, and in none of
 * the `denied` ranges (CIDR).
 */
export function makeAddressGuard(denied: readonly string[] = []): (address: string) => boolean {
  const ranges = [AZURE_HOST, ...denied].map((range) => ipaddr.parseCIDR(range));
  return (text) => {
    if (!ipaddr.isValid(text)) return false;
    // Unmaps ::ffff:a.b.c.d, so that it is judged as the IPv4 address that it is.
    const address = ipaddr.process(text);
    if (address.range() !== "unicast") return false;
    if (address instanceof ipaddr.IPv6 && !address.match(GLOBAL_IPV6)) return false;
    return !ranges.some(([net, bits]) => net.kind() === address.kind() && address.match(net, bits));
  };
}
