// The client of the TypeScript SDK 1.x, which knows legacy revisions alone.
import { countArrivals, isSse, load, main, transportTo } from './driver.mjs';

const { Client } = load('@modelcontextprotocol/sdk/client/index.js');
const { SSEClientTransport: Sse } = load('@modelcontextprotocol/sdk/client/sse.js');
const { StdioClientTransport: Stdio } = load('@modelcontextprotocol/sdk/client/stdio.js');
const { StreamableHTTPClientTransport: Http } = load('@modelcontextprotocol/sdk/client/streamableHttp.js');

class PeerClient extends Client {
  callTool(name, args, options) {
    return super.callTool({ name, arguments: args }, undefined, options);
  }
}

await main(async (target) => {
  const client = new PeerClient({ name: 'typescript-1', version: '1.0.0' });
  await client.connect(transportTo(target, { Http, Sse, Stdio }));
  if (isSse(target)) countArrivals(client);
  return client;
});
