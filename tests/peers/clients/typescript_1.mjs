// The client of the TypeScript SDK 1.x, which knows legacy revisions alone.
import { load, main } from './driver.mjs';

const { Client } = load('@modelcontextprotocol/sdk/client/index.js');
const { StreamableHTTPClientTransport } = load('@modelcontextprotocol/sdk/client/streamableHttp.js');

class PeerClient extends Client {
  callTool(name, args, options) {
    return super.callTool({ name, arguments: args }, undefined, options);
  }
}

await main(async (url) => {
  const client = new PeerClient({ name: 'typescript-1', version: '1.0.0' });
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));
  return client;
});
