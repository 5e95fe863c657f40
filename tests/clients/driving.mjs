// Does with the official client what a test says, and tells what the client tells. In Node and in a page.

const CLIENT = ["connecting", "connected", "disconnected", "error", "message"];
const SUBSCRIPTION = ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"];

// Centrifuge: the class; means: options for the place where this runs; say: takes each event.
export function driving(Centrifuge, means, say) {
  const clients = new Map();
  const questions = new Map();
  let asked = 0;

  function ask(who, event, channel) {
    return new Promise((resolve, reject) => {
      asked += 1;
      questions.set(asked, { resolve, reject });
      say({ who, event, channel, question: asked });
    });
  }

  const content = (ctx) => (ctx.error ? { ...ctx, error: { code: ctx.error.code, message: ctx.error.message } } : ctx);

  const orders = {
    open({ who, url, options = {}, asks = false }) {
      const getToken = asks ? { getToken: () => ask(who, "get_token") } : {};
      const client = new Centrifuge(url, { ...means, ...options, ...getToken });
      for (const event of CLIENT) client.on(event, (ctx) => say({ who, event, ...content(ctx) }));
      clients.set(who, client);
    },
    subscription({ who, channel, options = {}, asks = false, state = false, kind }) {
      const given = { ...options };
      if (asks) given.getToken = () => ask(who, "get_token", channel);
      if (state) given.getState = () => ask(who, "get_state", channel);
      const client = clients.get(who);
      const subscription =
        kind === "map" ? client.newMapSubscription(channel, given) : client.newSubscription(channel, given);
      for (const event of SUBSCRIPTION) {
        subscription.on(event, (ctx) => say({ who, channel, event, ...content(ctx) }));
      }
    },
    answer({ question, value, refuse }) {
      const { resolve, reject } = questions.get(question);
      questions.delete(question);
      if (refuse) reject(refuse === "unauthorized" ? new Centrifuge.UnauthorizedError("no") : new Error("later"));
      else resolve(value);
    },
    // A method of the client's, or of a subscription's.
    async call({ who, channel, method, args = [] }) {
      const client = clients.get(who);
      const target = channel === undefined ? client : client.getSubscription(channel);
      return (await target[method](...args)) ?? null;
    },
    state({ who, channel }) {
      const client = clients.get(who);
      return channel === undefined ? client.state : client.getSubscription(channel).state;
    },
    close({ who }) {
      clients.get(who)?.disconnect();
      clients.delete(who);
    },
  };

  return async ({ number, order, ...rest }) => {
    try {
      return { number, value: (await orders[order](rest)) ?? null };
    } catch (error) {
      const { code = null, message = String(error), temporary = false } = error;
      return { number, error: { code, message, temporary } };
    }
  };
}
