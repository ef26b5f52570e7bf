package nbd.cli;

import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import org.tinylog.Logger;

/**
 * Does something on SIGHUP, by which daemons are told to read their files again.
 *
 * <p>{@code sun.misc.Signal} is the only way to it that the JDK has, and javac warns of its name:
 * so it is reached by reflection.
 */
final class HangUp {
  private HangUp() {}

  /**
   * Runs an action on each SIGHUP from now on, which does not end the program any more.
   *
   * @param action called by a thread of its own
   */
  static void onSignal(Runnable action) {
    InvocationHandler handler =
        (proxy, method, arguments) -> {
          if (method.getName().equals("handle")) {
            action.run();
          }
          return null;
        };
    try {
      Class<?> signal = Class.forName("sun.misc.Signal");
      Class<?> type = Class.forName("sun.misc.SignalHandler");
      Object proxy =
          Proxy.newProxyInstance(HangUp.class.getClassLoader(), new Class<?>[] {type}, handler);
      Method handle = signal.getMethod("handle", signal, type);
      handle.invoke(null, signal.getConstructor(String.class).newInstance("HUP"), proxy);
    } catch (ReflectiveOperationException unavailable) {
      Logger.warn("SIGHUP cannot be handled here: certificates are not read again");
      Logger.debug(unavailable);
    }
  }
}
