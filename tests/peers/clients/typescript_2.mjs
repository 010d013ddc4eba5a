// The TypeScript client 2.x; mode `auto` probes for 2026-07-28, mode `legacy` does not.
import { load, main, transportTo } from './driver.mjs';

const { Client, StreamableHTTPClientTransport } = load('@modelcontextprotocol/client');
const { StdioClientTransport } = load('@modelcontextprotocol/client/stdio');

class PeerClient extends Client {
  callTool(name, args, options) {
    return super.callTool({ name, arguments: args }, options);
  }
}

await main(async (target, mode) => {
  const client = new PeerClient({ name: 'typescript-2', version: '1.0.0' }, { versionNegotiation: { mode } });
  await client.connect(transportTo(target, StreamableHTTPClientTransport, StdioClientTransport));
  return client;
});
