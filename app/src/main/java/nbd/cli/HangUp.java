package nbd.cli;

import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import org.tinylog.Logger;

/**
 * The signal SIGHUP, on which daemons read their files again.
 *
 * <p>The JDK's only way to handle it is {@code sun.misc.Signal}. javac warns of that name, and the
 * warning cannot be switched off, so it is reached by reflection.
 */
final class HangUp {
  private HangUp() {}

  /**
   * Runs an action on each SIGHUP from now on, which then no longer ends the program.
   *
   * @param action called by a new thread for each signal
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
      Logger.warn("SIGHUP cannot be handled here: files are not read again");
      Logger.debug(unavailable);
    }
  }
}
